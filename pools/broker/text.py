r"""Text from outside as one line of a log or a terminal.

A reason, a name or a message may hold line ends, which forge log lines, and escape sequences, which control a terminal.

>>> one_line("more load\n2026-01-01 INFO forged \x1b[2J\x9b1m\u202e")
'more load\\n2026-01-01 INFO forged \\x1b[2J\\x9b1m\\u202e'
>>> one_line("größer: 5 µs"), one_line("a" * 10, limit=4)
('größer: 5 µs', 'aaa…')
"""

from __future__ import annotations

import logging
from typing import Any
from unicodedata import category


def one_line(text: object, limit: int | None = None) -> str:
    """Return the text with every character that is not printable as its escape sequence."""
    clean = str(text)
    if not clean.isprintable():
        clean = "".join(one if one.isprintable() or category(one) == "Zs" else repr(one)[1:-1] for one in clean)
    return clean if limit is None or len(clean) <= limit else clean[: limit - 1] + "…"


def many_lines(text: object) -> str:
    """The same for text that may have several lines, such as a traceback; each keeps its indentation."""
    return "\n".join(one_line(line.expandtabs()) for line in str(text).split("\n"))


class LineFormatter(logging.Formatter):
    """Writes each record as one line, and its traceback below, without control characters."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return many_lines(super().formatException(ei))

"""How a call ended badly, told from the exception: code, type, message, and the user's part of the traceback.

Nothing here may raise: the exception is the user's, and its own methods may fail.
"""

from __future__ import annotations

import pathlib
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from snakepit.workers.call import AssignedCall
from snakepit.workers.report import FailureReport, clean
from snakepit.workers.schema.value import type_name

MAX_MESSAGE = 2 * 1024
MAX_TRACEBACK = 16 * 1024 - 64  # room for the line that says what was cut
MAX_FRAMES = 60

_HERE = str(pathlib.Path(__file__).parent)


def failure(call: AssignedCall, code: str, message: str, details: Mapping[str, Any] | None = None) -> FailureReport:
    return FailureReport(call.sequence, code, clean(message, MAX_MESSAGE), seconds=call.seconds, details=details or {})


def raised(call: AssignedCall, error: BaseException, code: str = "adapter_error") -> FailureReport:
    """The command raised."""
    told = failure(call, code, message_of(error))
    told.type = clean(type_name(type(error)), 256)
    told.traceback = traceback_of(error)
    return told


def stopped(call: AssignedCall, error: BaseException | None = None) -> FailureReport:
    """The call ended because it was asked to, or because its deadline passed."""
    code = call.reason or "cancelled"
    began = "" if call.began else " before it began"
    message = f"the deadline passed{began}" if code == "deadline_exceeded" else f"the call was cancelled{began}"
    details = {} if call.began else {"outcome": "not_started"}
    told = failure(call, code, message, details)
    if error is not None:
        told.traceback = traceback_of(error)
    return told


def message_of(error: BaseException) -> str:
    """
    >>> message_of(SystemExit(3)), message_of(KeyError("pixels"))
    ('the command called sys.exit(3)', "'pixels'")
    """
    if isinstance(error, SystemExit):
        return clean(f"the command called sys.exit({_safe(repr, error.code)})", MAX_MESSAGE)
    return clean(_safe(str, error) or type(error).__name__, MAX_MESSAGE)


def _safe(show: Any, value: object) -> str:
    try:
        return str(show(value))
    except BaseException:  # a hostile __str__ may raise anything, SystemExit too
        return f"<{type(value).__name__} that cannot be shown>"


def traceback_of(error: BaseException) -> str:
    """At most 16 KiB; the worker's own frames are left out, they are the same each time."""
    try:
        lines = list(
            traceback.TracebackException(
                type(error), error, _user_part(error.__traceback__), limit=-MAX_FRAMES, compact=True
            ).format()
        )
    except BaseException as why:
        return f"(the traceback cannot be shown: {type(why).__name__})"
    text = "".join(clean(line, MAX_MESSAGE) for line in lines)
    return _middle_cut(text)


def _user_part(tb: TracebackType | None) -> TracebackType | None:
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_HERE):
        tb = tb.tb_next
    return tb


def _middle_cut(text: str) -> str:
    data = text.encode("utf-8", "replace")
    if len(data) <= MAX_TRACEBACK:
        return data.decode("utf-8")
    head, tail = data[: MAX_TRACEBACK // 4], data[-(MAX_TRACEBACK * 3 // 4) :]
    return f"{head.decode('utf-8', 'ignore')}\n    [...]\n{tail.decode('utf-8', 'ignore')}"

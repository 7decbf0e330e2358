"""Turns an exception into a failure report: code, type, message, and the user's part of the traceback.

Nothing here may raise, although the exception's own methods may. An error here would end the worker, or the slot's
thread. So names and arguments are read past properties that a class or its metaclass puts over them.
"""

from __future__ import annotations

import pathlib
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from snakepit.workers.call import AssignedCall
from snakepit.workers.report import FailureReport, clean
from snakepit.workers.schema.kinds import type_name

MAX_MESSAGE = 2 * 1024
MAX_TRACEBACK = 16 * 1024 - 64  # leaves room for the line that marks the cut
MAX_FRAMES = 60
MAX_ARGUMENTS = 8  # of an exception
PLAIN = (str, int, bool, type(None))
read_name: Any = type.__dict__["__name__"].__get__
read_arguments: Any = vars(BaseException)["args"].__get__

_HERE = str(pathlib.Path(__file__).parent)


def failure(call: AssignedCall, code: str, message: str, details: Mapping[str, Any] | None = None) -> FailureReport:
    return FailureReport(call.sequence, code, clean(message, MAX_MESSAGE), seconds=call.seconds, details=details or {})


def raised(call: AssignedCall, error: BaseException, code: str = "adapter_error") -> FailureReport:
    """The report of an exception that the command raised."""
    report = failure(call, code, named_message_of(error))
    report.type = type_of(error)
    report.traceback = traceback_of(error)
    if (arguments := plain_arguments(error)) is not None:
        report.details = {**report.details, "args": arguments}
    return report


def plain_arguments(error: BaseException) -> list[Any] | None:
    """The exception's `args`, if JSON holds them as they are: with them a client makes the exception again."""
    arguments = list(read_arguments(error))
    if len(arguments) > MAX_ARGUMENTS or not all(type(item) in PLAIN for item in arguments):
        return None
    texts = [item for item in arguments if type(item) is str]
    if any(len(text) > MAX_MESSAGE or clean(text) != text for text in texts):
        return None
    return arguments if all(type(i) is not int or abs(i) < 2**63 for i in arguments) else None


def stopped(call: AssignedCall, error: BaseException | None = None) -> FailureReport:
    """The report of a call that was cancelled, or whose deadline passed."""
    code = call.reason or "cancelled"
    began = "" if call.began else " before it began"
    message = f"the deadline passed{began}" if code == "deadline_exceeded" else f"the call was cancelled{began}"
    details = {} if call.began else {"outcome": "not_started"}
    report = failure(call, code, message, details)
    if error is not None:
        report.traceback = traceback_of(error)
    return report


def type_of(error: BaseException) -> str:
    """The name of the exception's type, with its module."""
    kind = type(error)
    try:
        return clean(type_name(kind), 256)
    except BaseException:  # code of a metaclass, or a `__module__` that is no text
        return clean(read_name(kind), 256)


def message_of(error: BaseException) -> str:
    """The exception's text, or its type if it has none.

    >>> message_of(SystemExit(3)), message_of(KeyError("pixels"))
    ('the command called sys.exit(3)', "'pixels'")
    """
    if isinstance(error, SystemExit):
        return clean(f"the command called sys.exit({_safe(repr, error.code)})", MAX_MESSAGE)
    return clean(_safe(str, error) or read_name(type(error)), MAX_MESSAGE)


def named_message_of(error: BaseException) -> str:
    """The exception's type and text, as in the last line of a traceback: the text of a KeyError is only the key.

    >>> named_message_of(KeyError("region")), named_message_of(KeyboardInterrupt())
    ("KeyError: 'region'", 'KeyboardInterrupt')
    """
    name, message = read_name(type(error)), message_of(error)
    return message if message == name or isinstance(error, SystemExit) else f"{name}: {message}"


def _safe(show: Any, value: object) -> str:
    try:
        return str(show(value))
    except BaseException:  # __str__ may raise anything, also SystemExit
        return f"<{read_name(type(value))} that cannot be shown>"


def traceback_of(error: BaseException) -> str:
    """The traceback, 16 KiB at most, without the worker's own frames, which are always the same."""
    try:
        lines = list(
            traceback.TracebackException(
                type(error), error, _user_part(error.__traceback__), limit=-MAX_FRAMES, compact=True
            ).format()
        )
    except BaseException as reason:
        return f"(the traceback cannot be shown: {read_name(type(reason))})"
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

"""What a running command knows of its call: id, deadline, whether to stop; and how it tells of its progress."""

from __future__ import annotations

from typing import Protocol

from snakepit.workers.call import Call
from snakepit.workers.report import Log, Progress, Report, clean


class CallCancelled(Exception):
    """The call was cancelled, or its deadline has passed.

    An Exception and not a BaseException: it is raised only where the command itself asks (`raise_if_cancelled`), and
    there every `except Exception: rollback; raise` between that line and the worker is meant to see it. Code that
    swallows it gains nothing: after the pool's `cancel_grace` the process is ended.
    """


class Reports(Protocol):
    """Where reports go; the worker's Outbox."""

    def put(self, report: Report) -> None: ...


class Context:
    """Handed to a command that has a parameter annotated `Context`, or one named `ctx`."""

    __slots__ = ("_call", "_reports")

    def __init__(self, call: Call, reports: Reports) -> None:
        self._call = call
        self._reports = reports

    @property
    def call_id(self) -> str:
        """The call's public id, as the broker and the logs name it."""
        return self._call.call_id

    @property
    def deadline(self) -> float:
        """When the call must have ended, on the clock of `time.monotonic()`; infinite if there is no deadline."""
        return self._call.deadline

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, never below 0."""
        return self._call.remaining

    @property
    def cancelled(self) -> bool:
        """Whether the call is to end: cancelled by its caller, or past its deadline."""
        return self._call.cancelled

    def raise_if_cancelled(self) -> None:
        """Leave the command here if the call is to end."""
        if self._call.cancelled:
            raise CallCancelled(self._call.reason)

    def wait(self, seconds: float) -> bool:
        """Sleep up to `seconds`. True: the call is to end, stop now. For plain methods; async ones are cancelled."""
        return self._call.wait(seconds)

    def progress(self, fraction: float, message: str = "") -> None:
        """Tell how far the work is, 0 to 1. Only the newest is kept for a slow reader.

        A fraction beyond its range is clamped: a miscount in a courtesy must not end hours of work.
        """
        fraction = float(fraction)
        if not fraction >= 0.0:  # also catches NaN
            fraction = 0.0
        self._put(Progress(self._call.sequence, min(fraction, 1.0), clean(str(message))))

    def log(self, message: str) -> None:
        """Send one line to whoever follows the call. Lines beyond what a slow reader takes are counted and dropped."""
        self._put(Log(self._call.sequence, clean(str(message))))

    def _put(self, report: Report) -> None:
        # A thread that the command left behind may still hold the context: a Result must stay the last word.
        if not self._call.ended:
            self._reports.put(report)

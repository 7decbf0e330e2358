"""What a running command can ask about its call (id, deadline, cancellation), and how it reports its progress."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

from snakepit.workers.call import AssignedCall
from snakepit.workers.placed_array import new_array
from snakepit.workers.report import FinalReport, LogReport, ProgressReport, Report, clean

LONGEST_SNOOZE = 31 * 86_400  # seconds


class CallCancelled(Exception):
    """The call was cancelled, or its deadline has passed.

    Raised only where the command asks, in `Context.raise_if_cancelled`. It is an Exception and not a BaseException, so
    that every `except Exception: rollback; raise` on its way handles it. A command that swallows it runs on, until the
    broker ends the process after the pool's `cancel_grace`.
    """


class Snooze(Exception):
    """Put the job of this call off: it runs again after `seconds`. See `Context.snooze`."""

    def __init__(self, seconds: float) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_SNOOZE:
            raise ValueError(f"seconds: {seconds!r} is not a number of seconds from 0 to {LONGEST_SNOOZE}")
        super().__init__(seconds)
        self.seconds = float(seconds)


class ReportSink(Protocol):
    """Where reports go; the worker's Outbox."""

    def put(self, report: Report) -> None: ...

    def put_all(self, reports: Sequence[FinalReport]) -> None: ...


class Context:
    """The call that a command serves. A command gets it in a parameter annotated `Context`, or one named `ctx`.

    Callers do not pass it, and it is not part of the command's schema.

        @command
        def train(self, epochs: int, ctx: Context) -> float:
            for epoch in range(epochs):
                ctx.raise_if_cancelled()
                ctx.progress(epoch / epochs, f"epoch {epoch + 1} of {epochs}")
                self.model.step()
            return self.model.loss
    """

    __slots__ = ("_call", "_reports")

    def __init__(self, call: AssignedCall, reports: ReportSink) -> None:
        self._call = call
        self._reports = reports

    @property
    def call_id(self) -> str:
        """The call's public id, as in events and logs."""
        return self._call.call_id

    @property
    def deadline(self) -> float:
        """When the call must have ended: seconds on the clock of `time.monotonic()`; infinite without a deadline."""
        return self._call.deadline

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, never below 0; infinite without a deadline."""
        return self._call.remaining

    @property
    def cancelled(self) -> bool:
        """Whether the command should stop: its caller cancelled the call, or the deadline has passed."""
        return self._call.cancelled

    def raise_if_cancelled(self) -> None:
        """Raise CallCancelled if the command should stop."""
        if self._call.cancelled:
            raise CallCancelled(self._call.reason)

    def wait(self, seconds: float) -> bool:
        """Sleep for up to `seconds`. Returns True, early, if the command should stop.

        For plain methods. In an async command use `asyncio.sleep`: its task is cancelled instead.
        """
        return self._call.wait(seconds)

    def snooze(self, seconds: float) -> NoReturn:
        """End the call and run its job again after `seconds`, 31 days at most. It raises Snooze.

        It costs the job no attempt. A job is put off SNAKEPIT["JOBS_SNOOZES"] times at most. A caller without a job
        gets the error `snoozed` with `retry_after`.
        """
        raise Snooze(seconds)

    def progress(self, fraction: float, message: str = "") -> None:
        """Report how much of the work is done, from 0 to 1, to the reader of the call's events.

        A slow reader gets the newest report only. A fraction outside the range is set to its nearest end and NaN to 0:
        a wrong count must not fail hours of work.
        """
        fraction = float(fraction)
        if not fraction >= 0.0:  # also catches NaN
            fraction = 0.0
        self._put(ProgressReport(self._call.sequence, min(fraction, 1.0), clean(str(message))))

    def log(self, message: str) -> None:
        """Send one line to the reader of the call's events. If they come faster than they are read, some are dropped
        and their number is reported."""
        self._put(LogReport(self._call.sequence, clean(str(message))))

    def buffer(self, shape: int | Sequence[int], dtype: Any = "float64") -> Any:
        """Return a NumPy array for the result, with zeros. What the command computes in it is not copied any more.

            @command
            def scaled(self, factor: float, ctx: Context) -> np.ndarray:
                out = ctx.buffer(self.table.shape, self.table.dtype)
                return np.multiply(self.table, factor, out=out)

        The array is in memory that the caller maps, if the caller is on this machine and the array has 64 KiB or more;
        otherwise it is an ordinary array. Return it whole, alone or in a list or dict, and do not keep it.
        """
        return new_array(self._call, shape, dtype)

    def _put(self, report: Report) -> None:
        # A thread that the command left behind may still use the context: the final report must stay the last one.
        if not self._call.ended:
            self._reports.put(report)

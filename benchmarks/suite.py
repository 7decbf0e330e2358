"""Run rows one after the other. A row that fails or hangs is reported, and does not affect the others."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from benchmarks.contestants import RunningContestants
from benchmarks.row import Contestants, Failed, Outcome, Result, Row, Run

LIMIT = 600.0  # seconds for one row, including the start of its contestants
AGAIN = 10.0  # seconds after which a row that swallowed the first interrupt is interrupted again


class TookTooLong(BaseException):
    """A row exceeded its limit. Not an Exception, because retry loops of contestants would catch that."""


def by_peer(rows: Sequence[Row]) -> list[Row]:
    """Sort rows by their contestants, so that each contestant starts only once."""
    order = list(dict.fromkeys(row.needs for row in rows))
    return sorted(rows, key=lambda row: order.index(row.needs))


def run(
    rows: Sequence[Row], where: Callable[[], Run], report: Callable[[Outcome, float], None], limit: float = LIMIT
) -> None:
    """Run the rows. `tell` gets the outcome and duration of each row as soon as it ends."""
    ordered = by_peer(rows)
    with RunningContestants() as contestants:
        for place, row in enumerate(ordered):
            contestants.keep({name for later in ordered[place:] for name in later.needs if name in row.needs})
            began = time.monotonic()
            outcome = attempt(row, contestants, where(), limit)
            if isinstance(outcome, Failed):
                contestants.keep(())  # their state is unknown after a failure
            report(outcome, time.monotonic() - began)


def attempt(row: Row, contestants: Contestants, where: Run, limit: float = LIMIT) -> Outcome:
    try:
        with within(limit):
            for name in row.needs:
                contestants.get(name)
            result = Result(row, row.measure(contestants), where)
            result.ratio  # noqa: B018  a peer of zero fails here, where the error is reported
    except TookTooLong:
        return Failed(row, f"no result after {limit:g} s", where)
    except Exception as error:
        return Failed(row, reason(error), where)
    return result


def reason(error: Exception) -> str:
    """Format an exception on one line.

    >>> reason(ValueError("two\\nlines")), reason(KeyError())
    ('ValueError: two lines', 'KeyError')
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300].removesuffix(": ")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TookTooLong in the main thread after `seconds`."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, interrupt)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # first, otherwise a late alarm would call the other handler
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)

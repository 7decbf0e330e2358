"""Runs rows one after the other: one that fails or does not end is told with its reason, and harms no other."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from benchmarks.row import Contestants, Failed, Outcome, Result, Row, Run
from benchmarks.stage import Stage

LIMIT = 600.0  # seconds that one row may take, with the start of its contestants
AGAIN = 10.0  # seconds after which a row that has swallowed the first interruption is interrupted again


class TookTooLong(BaseException):
    """No Exception: a contestant that tries until it succeeds would take it for one more failure."""


def by_peer(rows: Sequence[Row]) -> list[Row]:
    """Rows of the same contestants one after the other, so that each contestant is on the stage once."""
    order = list(dict.fromkeys(row.needs for row in rows))
    return sorted(rows, key=lambda row: order.index(row.needs))


def run(
    rows: Sequence[Row], where: Callable[[], Run], tell: Callable[[Outcome, float], None], limit: float = LIMIT
) -> None:
    """Tell of each row as soon as it has ended: what came of it, and how many seconds it took."""
    ordered = by_peer(rows)
    with Stage() as stage:
        for place, row in enumerate(ordered):
            stage.keep({name for later in ordered[place:] for name in later.needs if name in row.needs})
            began = time.monotonic()
            outcome = attempt(row, stage, where(), limit)
            if isinstance(outcome, Failed):
                stage.keep(())  # nobody knows in which state it has left them
            tell(outcome, time.monotonic() - began)


def attempt(row: Row, stage: Contestants, where: Run, limit: float = LIMIT) -> Outcome:
    try:
        with within(limit):
            for name in row.needs:
                stage.get(name)
            result = Result(row, row.measure(stage), where)
            result.ratio  # noqa: B018  a peer of zero fails here, where it is told
    except TookTooLong:
        return Failed(row, f"it had not ended after {limit:g} s", where)
    except Exception as error:
        return Failed(row, reason(error), where)
    return result


def reason(error: Exception) -> str:
    """An exception on one line.

    >>> reason(ValueError("two\\nlines")), reason(KeyError())
    ('ValueError: two lines', 'KeyError')
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300].removesuffix(": ")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TookTooLong after so many seconds, wherever the main thread is then."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, interrupt)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # first, or a late alarm would meet the other handler
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)

"""Waiting awake, for a moment, for what mostly comes within it.

    look ── something came ──▶ it
      ▲ └─ nothing: give way ─┐
      └───────────────────────┘ until the span is over or somebody else took the core: then sleep, and for a while
                                sleep at once

A thread that sleeps until its answer comes pays twice. Its core has to be woken, and what it runs then takes three
times as long, because the core has forgotten everything meanwhile (docs/design.md has the figures). So the thread looks
again and again, and lets others have the core between two looks.

That is worth it in a loop of short calls, where the core would be idle meanwhile, and all three show. Who waits anew
later than RECENT after the last answer finds cores that have slept already, and gains nothing. A vigil in vain, or one
in which somebody else ran for longer than CROWDED, is followed by 2 waits without one, then by 4, up to MOST_SKIPPED;
one that was answered starts all over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

RECENT = 0.0003  # seconds since the last answer
CROWDED = 0.001  # seconds between two looks that tell that others want the core
MOST_SKIPPED = 64


class SpinWait(Generic[T]):
    """Of the one thread that waits. `look` returns at once: what came, or something false."""

    __slots__ = ("_ended", "_give_way", "_look", "_now", "_skip", "_skipped")

    def __init__(
        self,
        look: Callable[[], T],
        now: Callable[[], float] = time.monotonic,
        give_way: Callable[[], object] = os.sched_yield,
    ) -> None:
        self._look = look
        self._now = now
        self._give_way = give_way
        self._skip = 1  # waits that sleep at once after the next vigil in vain, half of them
        self._skipped = 0  # of those, how many are left
        self._ended = -RECENT  # when the last wait ended

    def keep(self, span: float) -> T | None:
        """What came within so many seconds. None: nothing did, or it was not tried; sleep."""
        look, now, give_way = self._look, self._now, self._give_way
        at = now()
        if at - self._ended > RECENT:
            return None
        if self._skipped:
            self._skipped -= 1
            return None
        ends = at + span
        while True:
            if came := look():
                self._skip = 1
                return came
            give_way()
            before, at = at, now()
            if at >= ends or at - before > CROWDED:
                self._skip = self._skipped = min(2 * self._skip, MOST_SKIPPED)
                return None

    def end(self) -> None:
        """What was waited for has come, asleep or awake."""
        self._ended = self._now()

"""Decide how many jobs of a pool one process claims. Pure: no I/O.

A process keeps as many calls in flight as the pool has slots that no other caller uses, and a little more, so that a
slot that becomes free finds its next call at the broker. The little is the work of a tenth of a second, at the rate at
which this process ends jobs of the pool: one job where they take long, many where they are short. So no process holds
jobs that another one could run now, and short jobs are claimed and ended many by one statement.

>>> room(Load(slots=8, others=2), running=0, rate=0.0)
7
>>> room(Load(slots=8, others=2), running=6, rate=400.0)  # 6 slots and 40 more
40
>>> room(Load(slots=8, others=2), running=30, rate=400.0)  # less than half of the little: later, by one statement
0
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HORIZON = 0.1  # seconds of work that a process claims beyond the free slots
MOST_EXTRA = 100  # jobs beyond the free slots
HALF_LIFE = 0.25  # seconds after which a measured rate has half its weight
SHORTEST = 0.005  # seconds between two updates of a rate
QUIET = 1.0  # seconds without an end after which the rate says little about the next ones
LITTLE = 0.3  # the weight that it has then


@dataclass(frozen=True, slots=True)
class Load:
    """What a pool can run, as its broker reports it."""

    slots: int
    others: int = 0  # calls of other processes, and calls that are no jobs
    queue: int = 100  # calls that may wait at the broker


ONE = Load(slots=0)  # as much as one thread runs: one job, or the work of a tenth of a second
UNKNOWN = Load(slots=3)  # the broker does not answer, or has not answered yet


def load(slots: int, free: int, waiting: int, queue: int, running: int) -> Load:
    """The load of a pool, of whose calls `running` belong to this process."""
    return Load(slots, max(0, slots - free + waiting - running), queue)


def room(load: Load, running: int, rate: float) -> int:
    """The number of jobs to claim now, beside the `running` ones; `rate`: jobs that this process ends per second."""
    slots = max(0, load.slots - load.others)
    little = max(1, min(MOST_EXTRA, math.ceil(load.queue / 2), math.ceil(rate * HORIZON)))
    return max(0, slots + little - running) if running <= slots + little // 2 else 0


class Rate:
    """Ends per second, the newest of which weigh most. What was before the first end, or a quiet time, weighs little.

    >>> rate = Rate()
    >>> for at in range(5):
    ...     rate.add(20 if at else 0, at * 0.05)
    >>> 250 < rate.value < 350  # of 400
    True
    """

    def __init__(self) -> None:
        self.value = 0.0
        self._at: float | None = None
        self._count = 0
        self._sum, self._weight = 0.0, LITTLE

    def begin(self, now: float) -> None:
        """Note that work begins where there was none. A quiet time before it says nothing about the rate."""
        if self._at is None or now - self._at > QUIET:
            self._at, self._count = now, 0
            self._sum, self._weight = self.value * LITTLE, LITTLE

    def add(self, count: int, now: float) -> None:
        """Note that `count` jobs ended since the last time."""
        if self._at is None:
            self._at = now
        self._count += count
        passed = now - self._at
        if passed >= SHORTEST:
            kept = 0.5 ** (passed / HALF_LIFE)
            self._sum = self._sum * kept + self._count / passed * (1 - kept)
            self._weight = self._weight * kept + 1 - kept
            self.value = self._sum / self._weight
            if passed > QUIET:
                self._sum, self._weight = self.value * LITTLE, LITTLE
            self._at, self._count = now, 0

"""The ends of attempts that wait for their write, and when they are written. No I/O.

Ends that follow each other share a write, because its statement and its commit cost more than their rows. A single end
is written soon.

>>> waiting = WaitingEnds()
>>> waiting.add(("a", 1), None, now=10.0)
>>> round(waiting.due(calls=5), 3)
10.01
>>> waiting.add(("b", 1), None, now=10.008)
>>> round(waiting.due(calls=4), 3)
10.018
>>> waiting.due(calls=0)  # no other end can follow
0.0
"""

from __future__ import annotations

from typing import Any

from snakepit.pools.jobs import ends

DELAY = 0.01  # seconds that an end waits for the next one, while calls are in flight
LONGEST_DELAY = 0.05  # seconds that an end waits while others follow it
ENOUGH = ends.MOST  # ends that wait for no other

Key = tuple[Any, int]  # the job and the number of its attempt


class WaitingEnds:
    """Ends by attempt, in the order in which they came."""

    def __init__(self) -> None:
        self.doubtful: set[Key] = set()  # a write of them failed, and may have been committed
        self._ends: dict[Key, Any] = {}
        self._first = self._last = 0.0

    def __contains__(self, key: Key) -> bool:
        return key in self._ends

    def __bool__(self) -> bool:
        return bool(self._ends)

    def add(self, key: Key, end: ends.End | None, now: float) -> None:
        """Keep an end; a later one of the same attempt replaces it."""
        if not self._ends:
            self._first = now
        self._ends[key], self._last = end, now

    def drop(self, key: Key) -> None:
        """Drop an end, because it is written or because it came too late."""
        self._ends.pop(key, None)
        self.doubtful.discard(key)

    def all(self) -> list[tuple[Key, ends.End]]:
        """The ends as they are now."""
        return list(self._ends.items())

    def due(self, calls: int) -> float:
        """When they are written. `calls`: those in flight, whose ends may follow."""
        if not calls or len(self._ends) >= ENOUGH:
            return 0.0
        return min(self._last + DELAY, self._first + LONGEST_DELAY)

"""Alarms by key, without a clock: the pool says when, the runner wakes it.

>>> timers = Timers()
>>> timers.set("tea", 3.0)
>>> timers.set("egg", 5.0)
>>> timers.set("tea", 7.0)
>>> timers.next()
5.0
>>> timers.due(6.0)
['egg']
>>> timers.clear("tea")
>>> timers.next() is None
True
"""

from __future__ import annotations

from collections.abc import Hashable, Set
from heapq import heapify, heappop, heappush
from itertools import count


class Timers:
    """One alarm a key; setting a key again moves it. All operations cost O(log n) at most, amortised."""

    def __init__(self) -> None:
        self._at: dict[Hashable, float] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._order = count()
        self.soonest = float("inf")  # no alarm rings before this; kept up by `set`, made exact by `next`

    def __len__(self) -> int:
        return len(self._at)

    def keys(self) -> Set[Hashable]:
        return self._at.keys()

    def set(self, key: Hashable, at: float) -> None:
        self._at[key] = at
        if at < self.soonest:
            self.soonest = at
        heappush(self._heap, (at, next(self._order), key))
        # Moved and cleared alarms stay in the heap until they come up; without this a million short calls with a
        # deadline of a minute would keep a million entries.
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._at):
            self._heap = [(at, next(self._order), key) for key, at in self._at.items()]
            heapify(self._heap)

    def clear(self, key: Hashable) -> None:
        self._at.pop(key, None)

    def next(self) -> float | None:
        while self._heap:
            at, _, key = self._heap[0]
            if self._at.get(key) == at:
                self.soonest = at
                return at
            heappop(self._heap)
        self.soonest = float("inf")
        return None

    def due(self, now: float) -> list[Hashable]:
        """Takes out and returns every key whose time has come, earliest first."""
        keys = []
        while (at := self.next()) is not None and at <= now:
            key = heappop(self._heap)[2]
            del self._at[key]
            keys.append(key)
        return keys

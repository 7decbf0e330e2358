"""Timers by key, without a clock: the pool sets them, the runner calls `Pool.tick` when one is due.

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
from heapq import heappop, heappush


class Timers:
    """One timer for each key; setting a key again moves it. Every operation costs O(log n) at most, amortised.

    Keys of one moment share a place in the heap: calls that came together are due together. A key that moves to a later
    moment keeps its place, and gets the new one when the old one comes up: most calls end before.
    """

    def __init__(self) -> None:
        self._at: dict[Hashable, float] = {}
        self._keys: dict[float, list[Hashable]] = {}  # by moment, in the order in which they were set
        self._moments: list[float] = []  # a heap
        self._entries = 0  # keys in all lists, for each timer one at its moment or before
        self.soonest = float("inf")  # no timer is due before this; lowered by `set`, made exact by `next`

    def __len__(self) -> int:
        return len(self._at)

    def keys(self) -> Set[Hashable]:
        return self._at.keys()

    def set(self, key: Hashable, at: float) -> None:
        before = self._at.get(key)
        self._at[key] = at
        if before is not None and before <= at:
            return
        self._add(key, at)
        if at < self.soonest:
            self.soonest = at
        # Without this a million short calls with a deadline of a minute would keep a million entries.
        if self._entries > 64 and self._entries > 4 * len(self._at):
            self._keys, self._moments, self._entries = {}, [], 0
            for kept, moment in self._at.items():
                self._add(kept, moment)

    def _add(self, key: Hashable, at: float) -> None:
        self._entries += 1
        keys = self._keys.get(at)
        if keys is None:
            self._keys[at] = [key]
            heappush(self._moments, at)
        else:
            keys.append(key)

    def clear(self, key: Hashable) -> None:
        self._at.pop(key, None)

    def next(self) -> float | None:
        """Return when the next timer is due; None if there is none."""
        while self._moments:
            at = self._moments[0]
            keys = self._keys[at]
            while keys:
                if self._at.get(keys[-1]) == at:
                    self.soonest = at
                    return at
                self._entries -= 1
                self._add_later(keys.pop(), at)
            del self._keys[heappop(self._moments)]
        self.soonest = float("inf")
        return None

    def due(self, now: float) -> list[Hashable]:
        """Remove and return every key whose time has come, earliest first."""
        due = []
        while (at := self.next()) is not None and at <= now:
            keys = self._keys.pop(heappop(self._moments))
            self._entries -= len(keys)
            for key in keys:
                if self._at.get(key) == at:
                    del self._at[key]
                    due.append(key)
                else:
                    self._add_later(key, at)
        return due

    def _add_later(self, key: Hashable, passed: float) -> None:
        """Give a key whose old moment has come up the place of its new one, if it has one."""
        at = self._at.get(key)
        if at is not None and at > passed:
            self._add(key, at)

"""Which workers have room, by load: the least loaded is found without looking at the others.

Among equals the one that has been free longest goes first, so that all workers age alike. Two kinds of room: a free
slot, and, where there is none, a place in the hands of a worker that will soon have one.
"""

from __future__ import annotations

from collections import OrderedDict

from snakepit.pools.broker.pool.worker import Worker

Bucket = OrderedDict[str, Worker]  # workers of one load, in the order in which they came to it


class LoadIndex:
    """`free`: workers with a free slot. `soon_free`: those without one that may hold more."""

    __slots__ = ("_at", "_by_ahead", "_by_load", "free", "soon_free")

    def __init__(self) -> None:
        self.free = 0
        self.soon_free = 0
        self._by_load: list[Bucket] = [OrderedDict()]
        self._by_ahead: list[Bucket] = [OrderedDict()]
        self._at: dict[str, tuple[Bucket, bool]] = {}  # where a worker is, and whether that is a free slot

    def place(self, worker: Worker) -> None:
        """Note a worker's load anew, after each change of it; one without room leaves the load_index."""
        self.remove(worker)
        if worker.has_room():
            self.free += 1
            buckets, number, free = self._by_load, len(worker.held), True
        elif worker.may_hold_more():
            self.soon_free += 1
            buckets, number, free = self._by_ahead, len(worker.held) - worker.slots, False
        else:
            return
        while len(buckets) <= number:
            buckets.append(OrderedDict())
        buckets[number][worker.id] = worker
        self._at[worker.id] = (buckets[number], free)

    def remove(self, worker: Worker) -> None:
        if found := self._at.pop(worker.id, None):
            bucket, free = found
            del bucket[worker.id]
            if free:
                self.free -= 1
            else:
                self.soon_free -= 1

    def least_loaded(self) -> Worker | None:
        """Who has a free slot."""
        for bucket in self._by_load if self.free else ():
            for worker in bucket.values():
                return worker
        return None

    def soonest_free(self) -> Worker | None:
        """Who has no free slot, but will within a moment."""
        for bucket in self._by_ahead if self.soon_free else ():
            for worker in bucket.values():
                return worker
        return None

"""Which workers have room, by load: the least loaded is found without looking at the others.

Among equals the one that has been free longest goes first, so that all workers age alike. Two kinds of room: a free
slot, and, where there is none, a place in the hands of a worker that will soon have one.
"""

from __future__ import annotations

from collections import OrderedDict

from pools.broker.worker import Worker


class Buckets:
    """Workers by a small number."""

    __slots__ = ("_buckets", "_number")

    def __init__(self) -> None:
        self._buckets: list[OrderedDict[str, Worker]] = []
        self._number: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._number)

    def put(self, worker: Worker, number: int) -> None:
        buckets = self._buckets
        while len(buckets) <= number:
            buckets.append(OrderedDict())
        buckets[number][worker.id] = worker
        self._number[worker.id] = number

    def discard(self, worker: Worker) -> None:
        number = self._number.pop(worker.id, None)
        if number is not None:
            del self._buckets[number][worker.id]

    def least(self) -> Worker | None:
        if self._number:
            for bucket in self._buckets:
                if bucket:
                    return next(iter(bucket.values()))
        return None


class Roster:
    __slots__ = ("_ahead", "_free")

    def __init__(self) -> None:
        self._free = Buckets()
        self._ahead = Buckets()

    def __len__(self) -> int:
        """Workers with a free slot."""
        return len(self._free)

    @property
    def soon_free(self) -> int:
        """Workers without a free slot that may hold more."""
        return len(self._ahead)

    def place(self, worker: Worker) -> None:
        """Note a worker's load anew, after each change of it; one without room leaves the roster."""
        self.remove(worker)
        if worker.has_room():
            self._free.put(worker, worker.load)
        elif worker.may_hold_more():
            self._ahead.put(worker, worker.ahead)

    def remove(self, worker: Worker) -> None:
        self._free.discard(worker)
        self._ahead.discard(worker)

    def least_loaded(self) -> Worker | None:
        """Who has a free slot."""
        return self._free.least()

    def soonest_free(self) -> Worker | None:
        """Who has no free slot, but will within a moment."""
        return self._ahead.least()

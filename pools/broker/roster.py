"""Which workers have room, by load: the least loaded is found without looking at the others.

Among equals the one that has been free longest goes first, so that all workers age alike.
"""

from __future__ import annotations

from collections import OrderedDict

from pools.broker.worker import Worker


class Roster:
    def __init__(self) -> None:
        self._by_load: list[OrderedDict[str, Worker]] = []
        self._load: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._load)

    def place(self, worker: Worker) -> None:
        """Note a worker's load anew, after each change of it; one without room leaves the roster."""
        old = self._load.pop(worker.id, None)
        if old is not None:
            del self._by_load[old][worker.id]
        if worker.has_room():
            while len(self._by_load) <= worker.load:
                self._by_load.append(OrderedDict())
            self._by_load[worker.load][worker.id] = worker
            self._load[worker.id] = worker.load

    def least_loaded(self) -> Worker | None:
        if self._load:
            for bucket in self._by_load:
                if bucket:
                    return next(iter(bucket.values()))
        return None

"""The worker that calls with a key prefer: the one that had the first of them, for as long as it serves.

It is a hint. A call never waits for its preferred worker: if that has no room, another one takes the call, and the
preference stays.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from snakepit.pools.broker.pool.worker import State, Worker

MOST_KEYS = 4096  # of a pool; the key that was used longest ago is forgotten


class WorkerRoom(Protocol):
    """What a choice depends on; the dispatcher's LoadIndex."""

    def has_room_like(self, worker: Worker, other: Worker) -> bool: ...


class PreferredWorkers:
    """The preferred worker of each key. Without keys it is empty and costs nothing."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, Worker] = OrderedDict()

    def choose(self, key: str, offered: Worker, room: WorkerRoom) -> Worker:
        """Return the worker for a call with a key: the preferred one if it has room like the offered one, else that."""
        preferred = self._of.get(key)
        if preferred is None or preferred.state is not State.READY:
            preferred = self._of[key] = offered
            if len(self._of) > MOST_KEYS:
                self._of.popitem(last=False)
        self._of.move_to_end(key)
        return preferred if preferred is offered or room.has_room_like(preferred, offered) else offered

    def forget(self, worker: Worker) -> None:
        """Forget the keys of a worker that has ended."""
        for key in [key for key, preferred in self._of.items() if preferred is worker]:
            del self._of[key]

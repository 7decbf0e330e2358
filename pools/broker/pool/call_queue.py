"""The calls that wait: highest priority first, then first come first served.

>>> line = CallQueue()
>>> for number, priority in [(1, 0), (2, 5), (3, 0)]:
...     line.join(Call(number, "run", arrived=number, deadline=99, size=10, priority=priority))
>>> len(line), line.bytes
(3, 30)
>>> line.leave(1).id
1
>>> [line.take().id, line.take().id], len(line)
([2, 3], 0)
>>> for number, command in [(4, "run"), (5, "run"), (6, "walk"), (7, "run")]:
...     line.join(Call(number, command, arrived=number, deadline=99))
>>> [call.id for call in line.take_alike(9, largest=0)], len(line)
([4, 5], 2)
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator

from snakepit.pools.broker.pool.call import Call


class CallQueue:
    def __init__(self) -> None:
        # OrderedDict, not dict: taking the first of a plain dict again and again walks over all that left before.
        self._lanes: dict[int, OrderedDict[int, Call]] = {}
        self._priorities: list[int] = []  # negated and sorted: the highest first
        self._calls: dict[int, Call] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, call: int) -> bool:
        return call in self._calls

    def __iter__(self) -> Iterator[Call]:
        return iter(tuple(self._calls.values()))

    def join(self, call: Call, *, first: bool = False) -> None:
        """Add a call at the end of its priority's lane, or at its head when it had its turn already."""
        lane = self._lanes.get(call.priority)
        if lane is None:
            lane = self._lanes[call.priority] = OrderedDict()
            insort(self._priorities, -call.priority)
        lane[call.id] = call
        if first:
            lane.move_to_end(call.id, last=False)
        self._calls[call.id] = call
        self.bytes += call.size

    def take(self) -> Call:
        """Remove and return the call whose turn it is."""
        lane = self._lanes[-self._priorities[0]]
        return self.leave(next(iter(lane)))

    def take_alike(self, most: int, largest: int) -> list[Call]:
        """Remove and return the call whose turn it is, and those right behind it that are of the same command.

        Behind the first, only calls that do not stream and have `largest` bytes at most.
        """
        lane = self._lanes[-self._priorities[0]]
        command = ""
        taken: list[Call] = []
        for call in lane.values():
            if not taken:
                command = call.command
            elif len(taken) == most or call.command != command or call.streams or call.size > largest:
                break
            taken.append(call)
        for call in taken:
            self.leave(call.id)
        return taken

    def first(self) -> Call:
        """The call whose turn it is."""
        lane = self._lanes[-self._priorities[0]]
        return lane[next(iter(lane))]

    def leave(self, number: int) -> Call:
        """Remove a call that waits."""
        call = self._calls.pop(number)
        lane = self._lanes[call.priority]
        del lane[number]
        if not lane:
            del self._lanes[call.priority]
            self._priorities.remove(-call.priority)
        self.bytes -= call.size
        return call

    def oldest_wait(self, now: float) -> float:
        """Seconds that the call that waits longest has done so; 0 of none."""
        heads = (next(iter(lane.values())) for lane in self._lanes.values())
        return max(0.0, now - min((call.arrived for call in heads), default=now))

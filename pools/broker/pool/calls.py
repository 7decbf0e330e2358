"""A call of a pool, and the queue in which calls wait: highest priority first, then in order of arrival.

>>> queue = CallQueue()
>>> for number, priority in [(1, 0), (2, 5), (3, 0)]:
...     queue.put(Call(number, "run", arrived=number, deadline=99, size=10, priority=priority))
>>> len(queue), queue.bytes
(3, 30)
>>> queue.remove(1).id
1
>>> [queue.take().id, queue.take().id], len(queue)
([2, 3], 0)
>>> for number, command in [(4, "run"), (5, "run"), (6, "walk"), (7, "run")]:
...     queue.put(Call(number, command, arrived=number, deadline=99))
>>> [call.id for call in queue.take_alike(9, max_bytes=0)], len(queue)
([4, 5], 2)
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from snakepit.pools.broker.caller import CallerIdentity


@dataclass(slots=True, eq=False)
class Call:
    """One run of a command, from its submission to its answer. Times are monotonic; the runner has the arguments.

    `answered` becomes true with the caller's answer. A call that was answered early (deadline, cancel) may still occupy
    its worker for a while: it keeps its slot until the worker reports its end.
    """

    id: int
    command: str
    arrived: float
    deadline: float
    size: int = 0  # bytes of the arguments, with those in buffers
    priority: int = 0
    idempotent: bool = False
    attempts: int = 0
    streams: bool = False  # the caller reads chunks as they come
    worker: str = ""  # the worker it is assigned to; empty while it waits in the queue
    assigned: float = 0.0
    checked: bool = False  # it had its slot long enough to have begun, and was asked for
    prefetched: bool = False  # it was sent to its worker before a slot was free
    expected: float = 0.0  # seconds that it is expected to run, counted from its assignment
    begun: bool = False  # by a worker that died since
    answered: bool = False
    lost: bool = False  # it did not end when asked to: its slot is lost until its worker ends
    caller: CallerIdentity | None = None  # with limits of its own
    buffer_bytes: int = 0  # of the arguments, in memory files
    affinity: str = ""  # a key: a worker that had a call with it is preferred
    batch: CallBatch | None = None  # the calls that it runs together with; None: it runs alone
    deferred_until: float = 0.0  # the latest moment to which it waits beside a free slot; 0: no slot was free yet
    batch_limit: int = 0  # most calls of its next batch, since an earlier one killed its worker; 0: its command's


@dataclass(slots=True, eq=False)
class CallBatch:
    """Calls of one command that run together in one slot."""

    size: int
    calls: dict[int, Call]  # those that the worker still holds
    grace_ends: float = 0.0  # of the call that was answered last while the batch runs
    lost: bool = False  # it did not end when asked to: its slot is lost
    measured: bool = False  # its time is recorded
    free_retries: int = 0  # calls that may run again without a retry of their own

    def has_time(self, now: float) -> bool:
        """Whether it may still run: for a call that waits for its result, or within the grace of the last one."""
        return now < self.grace_ends or any(not call.answered for call in self.calls.values())

    def lose(self) -> bool:
        """Count its slot as lost. False: it is counted already."""
        lost, self.lost = self.lost, True
        return not lost


class CallQueue:
    """The calls that wait for a worker.

    A command that runs in batches has a lane: its waiting calls in the same order. While a lane is held, its calls
    wait for more of their command, and other commands do not wait behind them.
    """

    def __init__(self) -> None:
        # OrderedDict, not dict: taking the first item of a plain dict again and again walks over all removed ones.
        self._by_priority: dict[int, OrderedDict[int, Call]] = {}
        self._priorities: list[int] = []  # negated and sorted: the highest first
        self.calls: dict[int, Call] = {}
        self.lanes: dict[str, CallQueue] = {}  # by command
        self.deferred: dict[str, float] = {}  # commands, and until when their calls may be held
        self.bytes = 0  # of arguments in messages, which the broker's own memory holds
        self.buffer_bytes = 0  # of arguments in memory files
        self.waiting_of: Counter[tuple[str, str]] = Counter()  # calls of each key and owner

    def __len__(self) -> int:
        return len(self.calls)

    def __contains__(self, call: int) -> bool:
        return call in self.calls

    def __iter__(self) -> Iterator[Call]:
        return iter(tuple(self.calls.values()))

    def put(self, call: Call, *, first: bool = False) -> None:
        """Add a call behind those of its priority, or before them if it had its turn already."""
        lane = self.lanes.get(call.command) if self.lanes and not call.streams else None
        if lane is not None:
            lane.put(call, first=first)
        if lane is not None and call.command in self.deferred:
            call.deferred_until = self.deferred[call.command]
        elif first or call.priority not in self._by_priority:
            self._line_up(call, first=first)
        else:
            self._by_priority[call.priority][call.id] = call
        self.calls[call.id] = call
        self.bytes += call.size - call.buffer_bytes
        self.buffer_bytes += call.buffer_bytes
        if call.caller:
            self.waiting_of.update(call.caller.names)

    def _line_up(self, call: Call, *, first: bool) -> None:
        calls = self._by_priority.get(call.priority)
        if calls is None:
            calls = self._by_priority[call.priority] = OrderedDict()
            insort(self._priorities, -call.priority)
        calls[call.id] = call
        if first:
            calls.move_to_end(call.id, last=False)

    def open_lane(self, command: str) -> None:
        """Give a command a lane; calls of it may wait already."""
        lane = self.lanes[command] = CallQueue()
        for call in self.in_order():
            if call.command == command and not call.streams:
                lane.put(call)

    def close_lane(self, command: str) -> None:
        self.release(command)
        del self.lanes[command]

    def defer(self, command: str, until: float) -> None:
        """Let the calls of a lane wait for more; other calls pass them."""
        self.deferred[command] = until
        for call in self.lanes[command]:
            call.deferred_until = call.deferred_until or until
            calls = self._by_priority[call.priority]
            del calls[call.id]
            if not calls:
                del self._by_priority[call.priority]
                self._priorities.remove(-call.priority)

    def release(self, command: str) -> None:
        """Put the held calls of a lane before all others of their priority."""
        if self.deferred.pop(command, None) is not None:
            for call in reversed([*self.lanes[command].in_order()]):
                self._line_up(call, first=True)

    def in_order(self) -> Iterator[Call]:
        """The calls that are not held, the next one first."""
        for priority in self._priorities:
            yield from self._by_priority[-priority].values()

    @property
    def has_next(self) -> bool:
        """Whether a call waits that is not held."""
        return bool(self._priorities)

    def take(self) -> Call:
        """Remove and return the next call."""
        return self.remove(self.peek().id)

    def take_alike(self, limit: int, max_bytes: int) -> list[Call]:
        """Remove and return the next call, and those right behind it that have the same command.

        Behind the first, only calls that do not stream, have no affinity and have at most `max_bytes`.
        """
        command = ""
        taken: list[Call] = []
        for call in self._by_priority[-self._priorities[0]].values():
            if not taken:
                command = call.command
            elif (
                len(taken) == limit or call.command != command or call.streams or call.affinity or call.size > max_bytes
            ):
                break
            taken.append(call)
        for call in taken:
            self.remove(call.id)
        return taken

    def peek(self) -> Call:
        """Return the next call; it stays."""
        calls = self._by_priority[-self._priorities[0]]
        return calls[next(iter(calls))]

    def count_next(self) -> int:
        """Return how many calls have the priority of the next call."""
        return len(self._by_priority[-self._priorities[0]])

    def remove(self, number: int) -> Call:
        """Remove and return a call that waits."""
        call = self.calls.pop(number)
        calls = self._by_priority.get(call.priority)
        if calls is not None and calls.pop(number, None) is not None and not calls:  # else it is deferred
            del self._by_priority[call.priority]
            self._priorities.remove(-call.priority)
        if self.lanes and not call.streams and (lane := self.lanes.get(call.command)) is not None:
            lane.remove(number)
            if not lane:
                self.deferred.pop(call.command, None)
        self.bytes -= call.size - call.buffer_bytes
        self.buffer_bytes -= call.buffer_bytes
        if call.caller:
            for name in call.caller.names:
                self.waiting_of[name] -= 1
                if not self.waiting_of[name]:
                    del self.waiting_of[name]
        return call

    def oldest_wait(self, now: float) -> float:
        """Return the seconds that the oldest call has waited; 0 if none waits."""
        oldest = (next(iter(calls.values())) for calls in self._by_priority.values())
        return max(0.0, now - min((call.arrived for call in oldest), default=now))

"""Which calls run together as one batch, when a batch stops waiting for more calls, and what that gains.

    call of a command with a lane ─▶ queue ─▶ a slot is free ─┬─ the batch is complete ─▶ one batch, one slot
                                                             └─ else: deferred, for `wait` seconds at most

While all slots are busy, calls collect in the queue by themselves. Beside a free slot a batch waits only if more calls
are likely to come: it is complete as soon as it has as many calls as the command recently had callers at a time. So a
single caller never waits.

>>> times = BatchTimes(BatchRule(limit=8, wait=0.005))
>>> for _ in range(SURE):
...     times.record(1, 0.010)
...     times.record(8, 0.016)
>>> times.gain, times.pays
(5.0, True)
>>> for _ in range(SAMPLES):
...     times.record(8, 0.079)
>>> times.pays
False
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from statistics import median

from snakepit.pools.broker.command_status import BatchStatus
from snakepit.pools.broker.pool.calls import Call, CallBatch, CallQueue
from snakepit.pools.broker.pool.times import Timers

MAX_BYTES = 8 * 2**20  # arguments of a batch
SAMPLES = 15  # of the newest runs, from which the gain is measured
SURE = 4  # samples of each kind, from which on the gain decides
PAYS, DOES_NOT = 1.2, 1.1  # gains from which on batches are used, and below which they are not
FIRST_ALONE, ALONE_EVERY = 8, 64  # of so many batches one call runs alone, for the comparison: at first, and later
TRY_EVERY = 64  # calls, after which a command whose batches gain too little gets one again


@dataclass(frozen=True, slots=True)
class BatchRule:
    """The arguments of `@command(batch=, wait=)`."""

    limit: int
    wait: float


class BatchTimes:
    """The runs of one command, alone and in batches."""

    __slots__ = ("_alone", "_together", "batches", "calls", "crowd", "pays", "rule", "running", "since", "turns")

    def __init__(self, rule: BatchRule) -> None:
        self.rule = rule
        self.pays = True
        self.batches = self.calls = 0  # of two calls or more
        self.running = 0  # calls that workers hold
        self.crowd = 0.0  # calls that wait or run at the same time, recently
        self.turns = 0  # batches that were formed
        self.since = 0  # calls that ran alone since the last try, while batches gain too little
        self._alone: deque[float] = deque(maxlen=SAMPLES)  # seconds
        self._together: deque[tuple[int, float]] = deque(maxlen=SAMPLES)  # calls and seconds

    def record(self, size: int, seconds: float) -> None:
        if size > 1:
            self.batches += 1
            self.calls += size
            self._together.append((size, seconds))
        else:
            self.since += 1
            self._alone.append(seconds)
        if len(self._alone) >= SURE and len(self._together) >= SURE and (gain := self.gain) is not None:
            self.pays = gain >= (DOES_NOT if self.pays else PAYS)

    @property
    def gain(self) -> float | None:
        """Calls a second of one slot in batches, divided by those of calls alone; None: not measured yet."""
        if not self._alone or not self._together:
            return None
        each = median(seconds / size for size, seconds in self._together)
        return round(median(self._alone) / each, 2) if each else None

    @property
    def mean_size(self) -> float:
        """Calls of one of the newest batches; 0: there was none."""
        return sum(size for size, _ in self._together) / len(self._together) if self._together else 0.0

    def limit(self) -> int:
        """The most calls of the next batch. Some calls run alone, for the comparison."""
        if not self.pays:
            return self.rule.limit
        every = FIRST_ALONE if len(self._alone) < SURE else ALONE_EVERY
        return 1 if self.turns % every == 0 else self.rule.limit

    def status(self, command: str) -> BatchStatus:
        rule = self.rule
        size = round(self.mean_size, 1)
        return BatchStatus(command, rule.limit, rule.wait, self.pays, self.batches, self.calls, size, self.gain)


class Batches:
    """Forms the batches of a pool. It only decides: the dispatcher assigns the calls."""

    def __init__(self, queue: CallQueue, timers: Timers) -> None:
        self.times: dict[str, BatchTimes] = {}  # by command; empty for a pool without batches
        self._queue = queue
        self._timers = timers

    def set_rules(self, rules: Mapping[str, BatchRule]) -> None:
        """Take over the batch rules of a new worker's commands. Measurements under an unchanged rule stay."""
        for command in [name for name, times in self.times.items() if rules.get(name) != times.rule]:
            self._queue.close_lane(command)
            del self.times[command]
        for command, rule in rules.items():
            if command not in self.times:
                self.times[command] = BatchTimes(rule)
                self._queue.open_lane(command)

    def applies_to(self, call: Call) -> bool:
        """Whether the call goes to a slot in a batch now."""
        times = self.times.get(call.command)
        if times is None or call.streams:
            return False
        return times.pays or (times.since >= TRY_EVERY and len(self._queue.lanes[call.command]) > 1)

    def is_full(self, call: Call) -> bool:
        """Whether as many calls of its command wait as one batch may have."""
        times = self.times.get(call.command)
        return times is not None and len(self._queue.lanes[call.command]) >= times.rule.limit

    def release_due(self, now: float) -> None:
        """Put back into the queue what was held long enough, or is complete."""
        for command, until in tuple(self._queue.deferred.items()):
            if now >= until or self._is_complete(command):
                self._queue.release(command)

    def take(self, head: Call, now: float) -> list[Call]:
        """Take the batch of the queue's next call, for a free slot. Empty: it is held, and other calls are next."""
        command, queue, times = head.command, self._queue, self.times[head.command]
        limit = times.limit()
        until = self._until(head, times, now)
        if limit > 1 and not head.batch_limit and now < until and not self._is_complete(command):
            queue.defer(command, until)
            self._timers.set(("batch", command), until)
            return []
        calls = self._members(head, limit)
        for call in calls:
            queue.remove(call.id)
        self._timers.clear(("batch", command))
        present = times.running + len(calls) + len(queue.lanes[command])
        times.crowd = max(present, (times.crowd + present) / 2)
        times.turns += 1
        times.since = 0
        if len(calls) > 1:
            batch = CallBatch(len(calls), {call.id: call for call in calls})
            for call in calls:
                call.batch = batch
        return calls

    def _until(self, head: Call, times: BatchTimes, now: float) -> float:
        """Until when the batch may wait beside a free slot: from the first check of its oldest call."""
        if head.deferred_until:
            return head.deferred_until
        return now + min(times.rule.wait, max(0.0, head.deadline - now) / 2)

    def _is_complete(self, command: str) -> bool:
        """Whether it makes no sense to wait for more calls: it is full, or no more are likely to come."""
        times, waiting = self.times[command], len(self._queue.lanes[command])
        times.crowd = max(times.crowd, times.running + waiting)
        return waiting >= min(times.rule.limit, int(times.crowd) - times.running)

    def _members(self, head: Call, limit: int) -> list[Call]:
        """The calls of the next batch, by priority and age. Those of a batch that killed a worker are on their own."""
        members: list[Call] = []
        size, suspect = 0, bool(head.batch_limit)
        for call in self._queue.lanes[head.command].in_order():
            limit = min(limit, call.batch_limit or limit)
            size += call.size
            if bool(call.batch_limit) != suspect or len(members) >= limit or (members and size > MAX_BYTES):
                break
            members.append(call)
        return members

    def assigned(self, calls: int, command: str) -> None:
        if times := self.times.get(command):
            times.running += calls

    def released(self, call: Call, seconds: float | None) -> None:
        """A worker does not hold the call any more; it ran for so many seconds, None: it did not run."""
        times = self.times.get(call.command)
        if times is None:
            return
        times.running = max(0, times.running - 1)
        batch = call.batch
        if seconds and not call.streams and not (batch and batch.measured):
            times.record(batch.size if batch else 1, seconds)
            if batch:
                batch.measured = True

    def status(self) -> tuple[BatchStatus, ...]:
        return tuple(times.status(command) for command, times in sorted(self.times.items()))


def split_limit(size: int, tries_left: int) -> int:
    """The most calls of a batch after one of `size` calls killed its worker, so that the last try runs each alone.

    >>> split_limit(32, 2), split_limit(6, 1)
    (6, 1)
    """
    return 1 if tries_left <= 1 else isqrt(max(0, size - 1)) + 1

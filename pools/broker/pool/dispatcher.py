"""The way of a call: it is accepted or refused, waits, goes to a worker, and may be revoked from it.

    submit ─▶ Admission ──▶ queue ──▶ free slot     always first
                  │           └─────▶ prefetch      a worker whose slots are busy, for a short and small call
                  ▼                      └── not begun after STALL_SECONDS, or its worker died: back to the queue's head
               refused

Waking a process up costs more than a short call. So the dispatcher sends short calls to a busy worker before a slot is
free: it prefetches them. The worker begins them without a wake-up in between.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from itertools import islice

from snakepit.pools.broker import errors, size_errors
from snakepit.pools.broker.events import Kind
from snakepit.pools.broker.pool.actions import Action, Assign, Fail, Revoke
from snakepit.pools.broker.pool.affinity import PreferredWorkers
from snakepit.pools.broker.pool.batches import Batches
from snakepit.pools.broker.pool.calls import Call, CallQueue
from snakepit.pools.broker.pool.times import UNKNOWN_SECONDS, RunTimes, Timers
from snakepit.pools.broker.pool.worker import READY, State, Worker
from snakepit.pools.broker.pool.worker_set import WorkerSet
from snakepit.pools.broker.quotas import queue_refusal

PREFETCH_SECONDS = 0.002  # expected work that a worker may have prefetched, for each of its slots: a bound of the wait
PREFETCH_CALLS = 64  # calls that a worker may have prefetched
PREFETCH_BYTES = 64 * 1024  # arguments of a prefetched call
# A prefetched call may wait this long for its turn; on a crowded machine half of it is normal.
STALL_SECONDS = 0.05
# A call with a slot begins immediately, unless its worker is frozen or native code holds the GIL.
BEGIN_SECONDS = 0.25

RETRY_AFTER = (0.1, 60.0)  # seconds, at least and at most

Bucket = OrderedDict[str, Worker]  # workers of one load, in the order in which they came to it
Ended = Iterable[tuple[int, float | None]]  # calls that ended: number, and the seconds that it ran


class LoadIndex:
    """Workers with room by load: the least loaded one is found without a search of all.

    Among equals the one that has been free longest comes first, so that all workers age alike.
    """

    __slots__ = ("_at", "_by_load", "_by_prefetched", "with_free_slot", "with_prefetch_room")

    def __init__(self) -> None:
        self.with_free_slot = 0
        self.with_prefetch_room = 0  # workers without a free slot that may prefetch more
        self._by_load: list[Bucket] = [OrderedDict()]
        self._by_prefetched: list[Bucket] = [OrderedDict()]
        self._at: dict[str, tuple[Bucket, bool]] = {}  # where a worker is, and whether it has a free slot

    def update(self, worker: Worker) -> None:
        """Put a worker where its load belongs; call it after each change. Without room it is in no bucket."""
        self.remove(worker)
        if has_room(worker):
            self.with_free_slot += 1
            buckets, number, free = self._by_load, len(worker.assigned) - worker.riders, True
        elif may_prefetch(worker):
            self.with_prefetch_room += 1
            buckets, number, free = self._by_prefetched, len(worker.assigned) - worker.places, False
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
                self.with_free_slot -= 1
            else:
                self.with_prefetch_room -= 1

    def has_room_like(self, worker: Worker, other: Worker) -> bool:
        """Whether a worker may take a call where `other` may: in a free slot, or to prefetch it."""
        found, like = self._at.get(worker.id), self._at.get(other.id)
        return found is not None and like is not None and found[1] is like[1]

    def least_loaded(self) -> Worker | None:
        """Return the worker with a free slot that runs the fewest calls."""
        for bucket in self._by_load if self.with_free_slot else ():
            for worker in bucket.values():
                return worker
        return None

    def least_prefetched(self) -> Worker | None:
        """Return the worker without a free slot that has the fewest prefetched calls."""
        for bucket in self._by_prefetched if self.with_prefetch_room else ():
            for worker in bucket.values():
                return worker
        return None


def has_room(worker: Worker) -> bool:
    """Whether a slot of the worker is free."""
    free = worker.state is READY and len(worker.assigned) < worker.places
    return free and not worker.silent and not worker.process_ended


def may_prefetch(worker: Worker) -> bool:
    """Whether the worker may get a short call before one of its slots is free."""
    return (
        worker.backlog <= PREFETCH_SECONDS * worker.slots
        and worker.state is READY
        and len(worker.assigned) < worker.places + PREFETCH_CALLS
        and not worker.reason
        and not worker.stalled
        and not worker.silent
        and not worker.process_ended
        and not worker.lost
        and (worker.max_served is None or worker.served + len(worker.assigned) < worker.max_served)
    )


def prefetch_room(worker: Worker, expected: float) -> int:
    """Return how many calls of this expected time the worker may prefetch together; at least 1 if it may prefetch."""
    room = worker.places + PREFETCH_CALLS - len(worker.assigned)
    if worker.max_served is not None:
        room = min(room, worker.max_served - worker.served - len(worker.assigned))
    spare = PREFETCH_SECONDS * worker.slots - worker.backlog
    return max(1, room if expected * room <= spare else min(room, 1 + int(spare / expected)))


class Dispatcher:
    """Assigns calls to workers, and keeps the record of which worker holds which calls."""

    def __init__(self, timers: Timers, batches: Batches) -> None:
        self.load_index = LoadIndex()
        self.batches = batches
        self.run_times = RunTimes()
        self.prefetched = 0  # calls that workers hold and that have no slot yet
        self._preferred = PreferredWorkers()
        self._timers = timers

    def next_assignment(self, queue: CallQueue, now: float) -> tuple[Worker, list[Call]] | None:
        """Take what is next out of the queue and choose its worker: a call or batch for a free slot, or some calls to
        prefetch."""
        load_index, batches = self.load_index, self.batches
        if queue.deferred:
            batches.release_due(now)
        while queue.has_next and (worker := load_index.least_loaded()):
            if not batches.times or not batches.applies_to(queue.peek()):
                return worker, [queue.take()]
            if calls := batches.take(queue.peek(), now):
                return worker, calls
        if not queue.has_next or (batches.times and batches.applies_to(queue.peek())):
            return None  # the calls of a batch collect in the queue until a slot is free
        if (worker := load_index.least_prefetched()) is None or not self._is_short(queue.peek()):
            return None
        if queue.peek().affinity:
            return worker, [queue.take()]
        room = prefetch_room(worker, self.run_times.expected(queue.peek().command))
        # Without a share, one worker would get a few calls alone. Calls of a lower priority are not part of it.
        fair_share = -(-queue.count_next() // load_index.with_prefetch_room)
        return worker, queue.take_alike(min(room, fair_share), PREFETCH_BYTES)

    def _is_short(self, call: Call) -> bool:
        """Whether it may be prefetched, and other calls behind it."""
        short = self.run_times.expected(call.command) <= PREFETCH_SECONDS
        return short and call.size <= PREFETCH_BYTES and not call.streams

    def assign(self, worker: Worker, calls: Sequence[Call], now: float) -> Assign:
        """Assign calls of one command to a worker, or to the one that their key prefers if that has room like it; from
        now on only their own deadlines end them."""
        if calls[0].affinity:
            worker = self._preferred.choose(calls[0].affinity, worker, self.load_index)
        expected = UNKNOWN_SECONDS if calls[0].streams else self.run_times.expected(calls[0].command)
        if calls[0].batch:
            worker.share(len(calls) - 1)
            expected /= len(calls)
        if self.batches.times:
            self.batches.assigned(len(calls), calls[0].command)
        name, assigned, places = worker.id, worker.assigned, worker.places
        for call in calls:
            call.worker = name
            call.assigned = now
            call.attempts += 1
            call.expected = expected
            call.prefetched = len(assigned) >= places
            assigned[call.id] = call
            self._timers.set(call.id, call.deadline)
            if call.prefetched:
                self.prefetched += 1
                if len(assigned) == places + 1:
                    self._timers.set(("stall", name), now + STALL_SECONDS)
        if not worker.watched:
            worker.watched = True
            self._timers.set(("begin", name), now + BEGIN_SECONDS)
        worker.backlog += expected * len(calls)
        self.load_index.update(worker)
        return Assign(calls, worker.id)

    def finish(self, worker: Worker, ended: Ended) -> list[Call]:
        """Release calls that the worker has ended; return those that it held."""
        calls, assigned, batched = [], worker.assigned, bool(self.batches.times)
        for number, seconds in ended:
            if number in assigned:
                call = _release(worker, number)
                if len(assigned) >= worker.places and not (call.batch and call.batch.calls):
                    self.prefetched -= 1  # the next one has its slot now
                calls.append(call)
                if batched:
                    self.batches.released(call, seconds)
                if seconds is None:
                    continue
                if call.streams:
                    self.run_times.record_stream(seconds)
                else:
                    self.run_times.record(call.command, seconds, call.batch.size if call.batch else 1)
        worker.stalled = worker.silent = False
        return calls

    def revoked(self, worker: Worker, numbers: Iterable[int], now: float) -> list[Call]:
        """Release calls that the worker did not begin and never will; return them, newest first."""
        wanted = set(numbers)
        self.prefetched -= worker.prefetched
        # It read nothing for a while: it gets no calls until it reports something.
        worker.silent |= any(number in wanted for number in islice(worker.assigned, worker.places))
        released = [_release(worker, number) for number in tuple(reversed(worker.assigned)) if number in wanted]
        for call in released:
            self.batches.released(call, None)
        self.prefetched += worker.prefetched
        worker.revoking = False
        if worker.assigned and not worker.watched:
            self._watch(worker, now + BEGIN_SECONDS)
        if worker.prefetched:  # what was not released may have begun; if it has not, it is revoked again
            self._timers.set(("stall", worker.id), now + STALL_SECONDS)
        self.load_index.update(worker)
        return released

    def orphans(self, worker: Worker, begun: Collection[int] | None) -> tuple[list[Call], set[int], set[str]]:
        """Return the calls of a worker that has ended, newest first; the numbers of the prefetched ones; and the
        commands that it was running. `begun`: the calls that it had begun; None: those with a slot."""
        prefetched = {call.id for call in worker.waiting()}
        assigned = sorted(worker.assigned.values(), key=lambda call: -call.id)
        for call in assigned:
            self.batches.released(call, None)
        self.prefetched -= worker.prefetched
        self._timers.clear(("stall", worker.id))
        self._timers.clear(("begin", worker.id))
        self.load_index.remove(worker)
        self._preferred.forget(worker)
        ran = worker.assigned.keys() - prefetched if begun is None else begun
        return assigned, prefetched, {call.command for call in assigned if call.id in ran}

    def revoke_stalled(self, worker: Worker, now: float) -> list[Action]:
        """Revoke the prefetched calls of a worker if the first of them has waited for STALL_SECONDS."""
        waiting = worker.waiting()
        if not waiting or worker.revoking or worker.state is State.STOPPING:
            return []
        due = waiting[0].assigned + STALL_SECONDS
        if now < due:
            self._timers.set(("stall", worker.id), due)
            return []
        worker.revoking = worker.stalled = True
        self.load_index.update(worker)
        return [Revoke(worker.id, waiting)]

    def revoke_unbegun(self, worker: Worker, now: float) -> list[Action]:
        """Revoke all calls that have not begun, if one had its slot for BEGIN_SECONDS. Asked once for each call."""
        worker.watched = False
        unchecked = [call for call in islice(worker.assigned.values(), worker.places) if not call.checked]
        if not unchecked or worker.revoking or worker.state is State.STOPPING:
            return []  # the end of a Revoke under way asks again
        due = unchecked[0].assigned + BEGIN_SECONDS
        if now < due:
            self._watch(worker, due)
            return []
        for call in unchecked:
            call.checked = call.assigned + BEGIN_SECONDS <= now
        worker.revoking = True
        return [Revoke(worker.id, tuple(worker.assigned.values()))]

    def _watch(self, worker: Worker, at: float) -> None:
        worker.watched = True
        self._timers.set(("begin", worker.id), at)


def _release(worker: Worker, number: int) -> Call:
    """Take a call from a worker; the first prefetched one has its slot now."""
    call = worker.assigned.pop(number)
    if batch := call.batch:
        del batch.calls[number]
        if batch.calls:
            worker.share(-1)
    # Sums of small numbers drift: an empty worker starts anew.
    worker.backlog = worker.backlog - call.expected if worker.assigned else 0.0
    return call


class Admission:
    """Accepts or refuses calls immediately. A refusal has the time after which to try again."""

    def __init__(self, worker_set: WorkerSet, queue: CallQueue, dispatcher: Dispatcher) -> None:
        self.refused_count = 0
        self.saturated = False  # the queue is full, and the event was published
        self._worker_set = worker_set
        self._queue = queue
        self._dispatcher = dispatcher

    @property
    def waiting(self) -> int:
        """Calls that have no slot yet, in the queue or prefetched."""
        return len(self._queue) + self._dispatcher.prefetched

    def refusal(self, call: Call, open_calls: Collection[int] = ()) -> errors.BrokerError | None:
        """Return why a call is refused, or None if it is accepted."""
        worker_set, spec = self._worker_set, self._worker_set.spec
        if worker_set.closing:
            return errors.ShuttingDown()
        if spec.paused:
            return errors.PoolPaused()
        suspects = worker_set.gate.suspects
        if suspects.suspended and (suspension := suspects.refusal(call, open_calls, call.arrived)):
            return suspension
        if worker_set.gate.failed and worker_set.refuses(call.arrived):
            return worker_set.pool_failed(call.arrived)
        if (size := call.size - call.buffer_bytes) > spec.max_payload:
            return size_errors.arguments_too_large(spec.name, size, spec.max_payload)
        if call.buffer_bytes > spec.max_buffer:
            return size_errors.buffers_too_large(spec.name, call.buffer_bytes, spec.max_buffer)
        batches = self._dispatcher.batches
        if self._dispatcher.load_index.with_free_slot and not (batches.times and batches.is_full(call)):
            return None  # it will not wait, or only for its batch
        if call.caller and (
            refusal := queue_refusal(call.caller, self._queue.waiting_of, spec.queue_limit, self.retry_after())
        ):
            return refusal
        if full := self._find_full(call):
            return errors.QueueFull(f"The pool's queue is full: {full}.", retry_after=self.retry_after())
        return None

    def _find_full(self, call: Call) -> str:
        """The limit of the queue that the call would exceed, as words; empty: none."""
        queue, spec = self._queue, self._worker_set.spec
        if self.waiting >= spec.queue_limit:
            return f"{self.waiting} calls wait, {spec.queue_limit} may"
        if queue.bytes + call.size - call.buffer_bytes > spec.queue_bytes:
            return f"{queue.bytes} bytes wait, {spec.queue_bytes} may"
        if call.buffer_bytes and queue.buffer_bytes + call.buffer_bytes > spec.queue_buffer_bytes:
            return f"{queue.buffer_bytes} bytes wait in shared memory, {spec.queue_buffer_bytes} may"
        return ""

    def refuse(self, call: Call, error: errors.BrokerError) -> list[Action]:
        """Answer the call. One event for each time the queue fills up, not one for each refused call."""
        self.refused_count += 1
        call.answered = True
        fail = Fail(call, error)
        if self.saturated or not isinstance(error, errors.QueueFull):
            return [fail]
        self.saturated = True
        message = f"{error.message} {self._worker_set.describe_load()}."
        return [fail, self._worker_set.emit(Kind.POOL_SATURATED, reason="queue_full", message=message, level="warning")]

    def retry_after(self) -> float:
        """Return the seconds until the queue is likely empty: the work that waits, divided by the slots that do it.

        It needs no rate of ended calls. After a cold start or an idle time such a rate is far too low.
        """
        worker_set, mean = self._worker_set, self._dispatcher.run_times.mean
        slots, start = worker_set.slots_ready(), 0.0
        if not slots:
            slots, start = worker_set.spec.size * worker_set.spec.slots, worker_set.startup_times.expected
        if not self._dispatcher.run_times.runs:
            return max(1.0, round(min(start, RETRY_AFTER[1]), 1))
        return round(min(RETRY_AFTER[1], max(RETRY_AFTER[0], start + self.waiting * mean / slots)), 1)

"""What lies in the workers' hands: calls that run, and short ones that were handed over before there was a slot.

A wake-up costs more than a short call. So where all slots are busy and the next call in line is known to be short, it
goes to the worker that will be free within a moment, which then begins it without anybody being woken:

    line ──▶ free slot                       always first
         ──▶ held ahead, unbegun ──▶ slot    known, short and small; at most AHEAD_CALLS and AHEAD_SECONDS of them
               └── not begun after STALL, or its worker died: back to the head of the line
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from snakepit.pools.broker.pool.actions import Action, Assign, Revoke
from snakepit.pools.broker.pool.call import Call
from snakepit.pools.broker.pool.call_queue import CallQueue
from snakepit.pools.broker.pool.load_index import LoadIndex
from snakepit.pools.broker.pool.run_times import UNKNOWN, RunTimes
from snakepit.pools.broker.pool.timers import Timers
from snakepit.pools.broker.pool.worker import AHEAD_SECONDS, State, Worker

AHEAD_BYTES = 64 * 1024  # arguments of a call that may be handed ahead, at most
STALL = (
    0.05  # seconds that a call may lie unbegun in a worker's hands; a crowded machine keeps one waiting for half of it
)


class Dispatcher:
    def __init__(self, timers: Timers) -> None:
        self.load_index = LoadIndex()
        self.run_times = RunTimes()
        self.waiting = 0  # calls in workers' hands that have no slot yet
        self._timers = timers

    def for_next(self, line: CallQueue) -> tuple[Worker, list[Call]] | None:
        """Who takes what stands first in the line, if somebody does: one call to a free slot, or some handed ahead."""
        load_index = self.load_index
        if worker := load_index.least_loaded():
            return worker, [line.take()]
        if (worker := load_index.soonest_free()) is None or not self._is_short(line.first()):
            return None
        room = worker.room_ahead(self.run_times.expected(line.first().command))
        fair = -(-len(line) // load_index.soon_free)  # a few calls are shared out, and do not all go to the same worker
        return worker, line.take_alike(min(room, fair), AHEAD_BYTES)

    def _is_short(self, call: Call) -> bool:
        """Whether it may wait in a worker's hands, and make another one wait there."""
        short = self.run_times.expected(call.command) <= AHEAD_SECONDS
        return short and call.size <= AHEAD_BYTES and not call.streams

    def give(self, worker: Worker, calls: Sequence[Call], now: float) -> Assign:
        """Put calls of one command into a worker's hands; from now on only their own deadlines end them."""
        expected = UNKNOWN if calls[0].streams else self.run_times.expected(calls[0].command)
        name, held, slots = worker.id, worker.held, worker.slots
        for call in calls:
            call.worker = name
            call.assigned = now
            call.attempts += 1
            call.expected = expected
            call.ahead = len(held) >= slots
            held[call.id] = call
            self._timers.set(call.id, call.deadline)
            if call.ahead:
                self.waiting += 1
                if len(held) == slots + 1:
                    self._timers.set(("stall", name), now + STALL)
        worker.backlog += expected * len(calls)
        self.load_index.place(worker)
        return Assign(calls, worker.id)

    def ended(self, worker: Worker, ended: Iterable[tuple[int, float | None]]) -> list[Call]:
        """The worker said its last word about calls (number, seconds that it ran); those that it held are returned."""
        calls, held = [], worker.held
        for number, seconds in ended:
            if number in held:
                if len(held) > worker.slots:
                    self.waiting -= 1
                call = worker.let_go(number)
                calls.append(call)
                if seconds is not None and not call.streams:
                    self.run_times.note(call.command, seconds)
        worker.stalled = False
        return calls

    def let_go(self, worker: Worker, number: int) -> Call:
        """Take a call out of a worker's hands; the first that waits there has its slot now."""
        self.waiting -= worker.ahead
        call = worker.let_go(number)
        self.waiting += worker.ahead
        return call

    def returned(self, worker: Worker, numbers: Iterable[int], now: float) -> list[Call]:
        """Calls that the worker did not begin come back, newest first."""
        wanted = set(numbers)
        back = [self.let_go(worker, number) for number in tuple(reversed(worker.held)) if number in wanted]
        worker.recalled = False
        if worker.ahead:  # what did not come back may have begun; if it has not, it is asked for again
            self._timers.set(("stall", worker.id), now + STALL)
        self.load_index.place(worker)
        return back

    def empty(self, worker: Worker) -> tuple[list[Call], set[int]]:
        """Its process is gone: what it held, newest first, and the numbers of those that had no slot yet."""
        waited = {call.id for call in worker.waiting()}
        held = sorted(worker.held.values(), key=lambda call: -call.id)
        self.waiting -= worker.ahead
        self._timers.clear(("stall", worker.id))
        self.load_index.remove(worker)
        return held, waited

    def stalled(self, worker: Worker, now: float) -> list[Action]:
        """Calls have waited in a worker's hands for a while. If the first still does, another one should have them."""
        waiting = worker.waiting()
        if not waiting or worker.recalled or worker.state is State.STOPPING:
            return []
        due = waiting[0].assigned + STALL
        if now < due:
            self._timers.set(("stall", worker.id), due)
            return []
        worker.recalled = worker.stalled = True
        self.load_index.place(worker)
        return [Revoke(worker.id, waiting)]

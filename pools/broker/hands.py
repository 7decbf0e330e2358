"""What lies in the workers' hands: calls that run, and short ones that were handed over before there was a slot.

A wake-up costs more than a short call. So where all slots are busy and the next call in line is known to be short, it
goes to the worker that will be free within a moment, which then begins it without anybody being woken:

    line ──▶ free slot                       always first
         ──▶ held ahead, unbegun ──▶ slot    known, short and small; at most AHEAD_CALLS and AHEAD_SECONDS of them
               └── not begun after STALL, or its worker died: back to the head of the line
"""

from __future__ import annotations

from collections.abc import Iterable

from pools.broker.actions import Action, TakeBack
from pools.broker.call import Call
from pools.broker.roster import Roster
from pools.broker.run_times import UNKNOWN, RunTimes
from pools.broker.timers import Timers
from pools.broker.worker import AHEAD_SECONDS, State, Worker

AHEAD_BYTES = 64 * 1024  # arguments of a call that may be handed ahead, at most
STALL = (
    0.05  # seconds that a call may lie unbegun in a worker's hands; a crowded machine keeps one waiting for half of it
)


class Hands:
    def __init__(self, timers: Timers) -> None:
        self.roster = Roster()
        self.run_times = RunTimes()
        self.waiting = 0  # calls in workers' hands that have no slot yet
        self._timers = timers

    def for_next(self, call: Call) -> Worker | None:
        """Who takes the first call of the line, if somebody does."""
        roster = self.roster
        worker = roster.least_loaded()
        if worker is None and (worker := roster.soonest_free()) and not self._is_short(call):
            return None
        return worker

    def _is_short(self, call: Call) -> bool:
        """Whether it may wait in a worker's hands, and make another one wait there."""
        short = self.run_times.expected(call.command) <= AHEAD_SECONDS
        return short and call.size <= AHEAD_BYTES and not call.streams

    def give(self, worker: Worker, call: Call, now: float) -> None:
        call.worker = worker.id
        call.assigned = now
        call.attempts += 1
        call.expected = UNKNOWN if call.streams else self.run_times.expected(call.command)
        call.ahead = len(worker.held) >= worker.slots
        if call.ahead:
            self.waiting += 1
            if len(worker.held) == worker.slots:
                self._timers.set(("stall", worker.id), now + STALL)
        worker.take(call)
        self.roster.place(worker)

    def ended(self, worker: Worker, number: int, seconds: float | None) -> Call:
        """The worker said its last word about a call, which ran so long."""
        call = self.let_go(worker, number)
        worker.stalled = False
        if seconds is not None and not call.streams:
            self.run_times.note(call.command, seconds)
        return call

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
        self.roster.place(worker)
        return back

    def empty(self, worker: Worker) -> tuple[list[Call], set[int]]:
        """Its process is gone: what it held, newest first, and the numbers of those that had no slot yet."""
        waited = {call.id for call in worker.waiting()}
        held = sorted(worker.held.values(), key=lambda call: -call.id)
        self.waiting -= worker.ahead
        self._timers.clear(("stall", worker.id))
        self.roster.remove(worker)
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
        self.roster.place(worker)
        return [TakeBack(worker.id, waiting)]

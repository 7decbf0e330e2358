"""One pool, without I/O: facts go in, actions come out.

    submit / cancel / finished ──┐                 ┌─▶ Assign, Cancel, Fail   (calls)
    ready / gone / sampled     ──┼──▶  Pool  ──────┼─▶ Start, Stop, Kill      (processes)
    apply / sweep / tick(now)  ──┘   (_settle)     └─▶ Tell                   (events)

Nothing here awaits, reads a clock or opens a socket. A call that meets a free slot has it at once, and every other fact
ends by settling: no call waits beside a free slot.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import cast

from snakepit.pools.broker import errors
from snakepit.pools.broker.events import Kind
from snakepit.pools.broker.pool.actions import Action, Cancel, Fail, Stop
from snakepit.pools.broker.pool.admission import Admission
from snakepit.pools.broker.pool.call import Call
from snakepit.pools.broker.pool.call_queue import CallQueue
from snakepit.pools.broker.pool.dispatcher import STALL, Dispatcher
from snakepit.pools.broker.pool.rates import RetryBudget
from snakepit.pools.broker.pool.recycle_policy import deadline_exceeded, worker_lost
from snakepit.pools.broker.pool.timers import Timers
from snakepit.pools.broker.pool.worker import State, Worker
from snakepit.pools.broker.pool.worker_set import WorkerSet
from snakepit.pools.broker.ports import Exit
from snakepit.pools.broker.spec import PoolSpec

MAX_ATTEMPTS = 3  # tries of one call, the first included


class Pool:
    """The decisions of one pool. `boot` is a short mark of this broker's life, part of every worker's id."""

    def __init__(self, spec: PoolSpec, boot: str = "0", rng: Random | None = None) -> None:
        self.spec = spec
        self.line = CallQueue()
        self.calls: dict[int, Call] = {}  # not answered, or still in a worker's hands
        self.timers = Timers()
        self.worker_set = WorkerSet(spec, boot, self.timers, rng or Random())
        self.finished_count = 0
        self.failed_count = 0
        self.retried_count = 0
        self.hands = Dispatcher(self.timers)
        self._retries = RetryBudget(spec.retry_budget)
        self.door = Admission(self.worker_set, self.line, self.hands)
        self._staff_changed = True

    # Facts about calls

    def submit(self, calls: Iterable[Call], now: float) -> list[Action]:
        """Take calls in, in this order, or refuse them with a Fail each."""
        actions: list[Action] = []
        taken, waits = 0, list[Call]()
        for call in calls:
            refusal = self.door.refusal(call, now)
            if refusal and waits:  # perhaps those before it need not wait in the line
                self._settle(actions, now)
                refusal = self.door.refusal(call, now)
            if refusal:
                actions += self.door.refused(call, refusal)
                continue
            self.calls[call.id] = call
            taken += 1
            if worker := self.hands.load_index.least_loaded():  # then nobody waits in the line
                actions.append(self.hands.give(worker, [call], now))
            else:
                self.line.join(call)
                waits.append(call)
        self._retries.earn(taken)
        if waits:
            self._settle(actions, now)
        for call in waits:
            if not call.worker and not call.answered:
                self.timers.set(call.id, min(call.deadline, now + self.spec.queue_timeout))
        return actions

    def cancel(self, number: int, now: float) -> list[Action]:
        """The caller does not want the answer any more. Unknown and answered calls are left alone."""
        call = self.calls.get(number)
        if call is None or call.answered:
            return []
        outcome = errors.UNKNOWN if call.worker else errors.NOT_STARTED
        return self._settle(self._end(call, errors.Cancelled(outcome=outcome), now), now)

    def finished(
        self, worker_id: str, number: int, now: float, *, ok: bool = True, seconds: float | None = None
    ) -> list[Action]:
        """The worker said its last word about a call, which ran so long; whoever waited has been answered by it."""
        return self.finished_many(worker_id, ((number, seconds),), now, ok=ok)

    def finished_many(
        self, worker_id: str, ended: Iterable[tuple[int, float | None]], now: float, *, ok: bool = True
    ) -> list[Action]:
        """As `finished`, for calls (number, seconds that it ran) whose last words came together."""
        worker = self.worker_set.workers.get(worker_id)
        if worker is None or not (calls := self.hands.ended(worker, ended)):
            return []
        answered = 0
        for call in calls:
            answered += not call.answered
            call.answered = True
            self.timers.clear(call.id)
            del self.calls[call.id]
            worker.growth.ran(call.command)
            worker.lost -= call.lost
        if answered:
            self.door.pace.beat(now, answered)
        if ok:
            self.finished_count += answered
        else:
            self.failed_count += answered
        worker.served += len(calls)
        if self.worker_set.judge(worker, now) or worker.state is not State.READY or worker.reason:
            self._staff_changed = True
        self.hands.load_index.place(worker)
        return self._settle([], now)

    def returned(self, worker_id: str, numbers: Iterable[int], now: float) -> list[Action]:
        """The worker has given these calls back without having begun them. The answer to a Revoke, or unasked."""
        worker = self.worker_set.workers.get(worker_id)
        if worker is None:
            return []
        actions: list[Action] = []
        # Newest first, since each goes to the head of the line: the oldest ends up first.
        for call in self.hands.returned(worker, numbers, now):
            actions += self._waits_again(call, now)
        if worker.state is not State.READY or worker.reason:
            self._staff_changed = True
        return self._settle(actions, now)

    # Facts about workers

    def ready(self, worker_id: str, now: float) -> list[Action]:
        worker = self.worker_set.workers.get(worker_id)
        if worker is None or worker.state is not State.STARTING:
            return []  # it was ended while its hello was on the way
        actions = list(self.worker_set.ready(worker, now))
        self.hands.load_index.place(worker)
        return self._settle(actions, now, staff=True)

    def boot_failed(self, worker_id: str, message: str) -> None:
        """The adapter could not be loaded. The process leaves by itself; its death is judged by this."""
        if worker := self.worker_set.workers.get(worker_id):
            worker.boot_failure = message

    def ended(self, worker_id: str) -> None:
        """The worker's process has ended; `gone` follows, once all that it had said is heard."""
        if worker := self.worker_set.workers.get(worker_id):
            worker.dead = True
            self.hands.load_index.remove(worker)

    def gone(
        self, worker_id: str, exit: Exit, now: float, *, begun: Iterable[int] | None = None, evidence: str = ""
    ) -> list[Action]:
        """The worker's process is reaped. `begun` are the calls it had begun; None: any may have."""
        worker = self.worker_set.workers.get(worker_id)
        if worker is None:
            return []
        orphans, waited = self.hands.empty(worker)
        actions = list(self.worker_set.gone(worker, exit, evidence, now))
        started = set(worker.held) if begun is None else set(begun)
        worker.held.clear()
        for call in orphans:
            if call.id in started or call.id not in waited:
                actions += self._orphaned(call, worker, call.id in started, evidence, now)
            else:
                actions += self._waits_again(call, now)
        return self._settle(actions, now, staff=True)

    def unforked(self, worker_id: str, why: str, now: float) -> list[Action]:
        """The worker did not come out of its template."""
        worker = self.worker_set.workers.get(worker_id)
        if worker is None:
            return []
        return self._settle(list(self.worker_set.unforked(worker, why, now)), now, staff=True)

    def sampled(self, worker_id: str, memory_mb: float, now: float) -> list[Action]:
        worker = self.worker_set.workers.get(worker_id)
        if worker is None:
            return []
        actions = list(self.worker_set.sampled(worker, memory_mb))
        self.worker_set.judge(worker, now)
        self.hands.load_index.place(worker)
        return self._settle(actions, now, staff=bool(actions or worker.reason))

    def unresponsive(self, worker_id: str, detail: str, now: float, signal: str, *, told: bool = False) -> list[Action]:
        """It gives no sign of life. One that is busy inside its deadline may hold the GIL: that is told, no more."""
        worker = self.worker_set.workers.get(worker_id)
        if worker is None or worker.state in (State.STARTING, State.STOPPING):
            return []
        if busy := signal == "event_loop" and not worker.is_idle():
            signal, detail = "busy", f"{detail}; it is busy within its deadline, and left alone"
        tell: Action = self.worker_set.tell(Kind.WORKER_UNHEALTHY, worker, signal, detail, level="warning")
        if busy:
            return [] if told else [tell]
        return self._settle([tell, *self._kill(worker, "health", detail)], now, staff=True)

    # Facts about templates

    def template_loaded(self, name: str, seconds: float, now: float) -> list[Action]:
        return self._settle(list(self.worker_set.template.loaded(name, seconds, now)), now, staff=True)

    def template_refused(self, name: str, reason: str, why: str, now: float) -> list[Action]:
        """It cannot be forked from: workers are spawned plainly."""
        return self._settle(list(self.worker_set.template.refused(name, reason, why, self.spec, now)), now, staff=True)

    def template_ended(self, name: str, exit: Exit, evidence: str, now: float) -> list[Action]:
        return self._settle(list(self.worker_set.template.ended(name, exit, evidence, self.spec, now)), now, staff=True)

    # Facts from operators and clocks

    def kill(self, worker: Worker, detail: str, now: float) -> list[Action]:
        return self._settle(self._kill(worker, "operator", detail), now, staff=True)

    def apply(self, spec: PoolSpec, now: float) -> list[Action]:
        self.spec = spec
        self._retries.share = spec.retry_budget
        return self._settle(list(self.worker_set.apply(spec)), now, staff=True)

    def recycle(self, worker_id: str, detail: str, now: float) -> list[Action]:
        """An operator wants one worker, or all (empty id), replaced."""
        self.worker_set.gate.reset()
        chosen = [self.worker_set.workers[worker_id]] if worker_id else list(self.worker_set.workers.values())
        actions = [] if worker_id else list(self.worker_set.template.renew("operator"))  # all anew: the code may be new
        actions += [action for worker in chosen for action in self.worker_set.replace(worker, "operator", detail)]
        return self._settle(actions, now, staff=True)

    def sweep(self, now: float, horizon: float = 0.0) -> list[Action]:
        """Judge the age, count and memory of every worker; `horizon` seconds later the next sweep will do so."""
        self.worker_set.judge_all(now, now + horizon)
        return self._settle([], now, staff=True)

    def close(self, now: float) -> list[Action]:
        """Take nothing new, answer who waits, finish what is held, let everybody go."""
        actions = list(self.worker_set.close())
        for call in self.line:
            actions += self._end(call, errors.ShuttingDown(), now)
        return self._settle(actions, now, staff=True)

    def tick(self, now: float) -> list[Action]:
        """Carry out what is due; `next_alarm` says when."""
        actions: list[Action] = []
        for key in self.timers.due(now):
            if isinstance(key, int):
                actions += self._late(self.calls[key], now)
                continue
            kind, name = cast("tuple[str, str]", key)
            worker = self.worker_set.workers.get(name)
            self._staff_changed |= kind != "stall"
            if kind == "age":
                self.worker_set.judge_all(now)
            elif worker:
                actions += self._overdue(kind, worker, now)
            elif kind == "template":
                actions += self.worker_set.template.late(name, self.spec, now)
        return self._settle(actions, now)

    def next_alarm(self) -> float | None:
        return self.timers.next()

    # Calls

    def _late(self, call: Call, now: float) -> list[Action]:
        """A call's alarm rang: it waited too long, ran too long, or did not stop when asked to."""
        if call.answered:
            return self._overran(call, now)
        if call.worker or now >= call.deadline:
            return self._end(call, deadline_exceeded(call), now)
        message = f"No worker was free within {self.spec.queue_timeout:g} s: {self.worker_set.describe_load()}."
        return self._end(call, errors.QueueTimeout(message, retry_after=self.door.retry_after(now)), now)

    def _end(self, call: Call, error: errors.BrokerError, now: float) -> list[Action]:
        """Answer a call with an error. One that runs is asked to stop and keeps its slot until it does."""
        call.answered = True
        self.failed_count += 1
        if call.begun:  # by a worker that died: it waits for another try, but it may have run
            error.outcome = errors.UNKNOWN
        actions: list[Action] = [Fail(call, error)]
        if call.worker:
            actions.append(Cancel(call, call.worker, error.code))
            self.timers.set(call.id, now + self.spec.cancel_grace)
        else:
            self.line.leave(call.id)
            self.timers.clear(call.id)
            del self.calls[call.id]
        return actions

    def _overran(self, call: Call, now: float) -> list[Action]:
        """It did not stop when asked to. A process can be ended; a thread cannot, so its slot is lost."""
        worker = self.worker_set.workers[call.worker]
        if not worker.runs(call):  # it only waits there, and will be taken back: the one that runs is not to blame
            self.timers.set(call.id, now + max(STALL, self.spec.cancel_grace))
            return []
        detail = f"call {call.id} of {call.command} did not stop within {self.spec.cancel_grace:g} s"
        self._staff_changed = True
        if worker.slots == 1:
            return self._kill(worker, "overrun", detail)
        call.lost = True
        worker.lost += 1
        message = f"{detail}; {worker.lost} of {worker.slots} slots are lost"
        self.worker_set.judge(worker, now)
        return [self.worker_set.tell(Kind.SLOT_LOST, worker, "overrun", message, level="warning")]

    def _orphaned(self, call: Call, worker: Worker, begun: bool, evidence: str, now: float) -> list[Action]:
        """What becomes of a call whose worker died: nothing, another try, or an error."""
        call.worker = ""
        call.begun |= begun
        self.timers.clear(call.id)
        if call.answered:
            del self.calls[call.id]
            return []
        may_run_again = call.idempotent or not begun
        if may_run_again and call.attempts < MAX_ATTEMPTS and not self.worker_set.closing and self._retries.spend():
            self.retried_count += 1
            self.line.join(call, first=True)
            self.timers.set(call.id, min(call.deadline, now + self.spec.queue_timeout))
            why = "it is idempotent" if begun else "it had not begun"
            return [self.worker_set.tell(Kind.CALL_RETRIED, worker, "worker_died", f"call {call.id} runs again: {why}")]
        call.answered = True
        self.failed_count += 1
        del self.calls[call.id]
        return [Fail(call, worker_lost(worker, call.begun, evidence))]

    def _waits_again(self, call: Call, now: float) -> list[Action]:
        """A call that was handed ahead and never begun is as if it had not been."""
        call.worker, call.ahead = "", False
        call.attempts -= 1
        if call.answered:
            self.timers.clear(call.id)
            del self.calls[call.id]
            return []
        self.line.join(call, first=True)
        if self.worker_set.closing:
            return self._end(call, errors.ShuttingDown(), now)
        self.timers.set(call.id, min(call.deadline, now + self.spec.queue_timeout))
        return []

    # Workers

    def _overdue(self, kind: str, worker: Worker, now: float) -> list[Action]:
        if kind == "stall":
            return self.hands.stalled(worker, now)
        if kind == "boot":
            return self._kill(worker, "startup_timeout", f"not ready within {self.spec.startup_timeout:g} s")
        if kind == "drain":
            return self._kill(worker, worker.reason, f"{worker.detail}; {worker.load} calls left at the drain deadline")
        return self._kill(worker, worker.reason, "did not leave when asked to")

    def _kill(self, worker: Worker, reason: str, detail: str) -> list[Action]:
        actions = list(self.worker_set.kill(worker, reason, detail))
        self.hands.load_index.place(worker)
        return actions

    # The one place that decides about those who wait, and about staff

    def _settle(self, actions: list[Action], now: float, *, staff: bool = False) -> list[Action]:
        if staff or self._staff_changed:
            self._staff_changed = False
            self._settle_staff(actions, now)
        line, hands = self.line, self.hands
        while len(line) and (match := hands.for_next(line)):
            actions.append(self.hands.give(*match, now))
        if self.door.saturated and self.waiting < self.spec.queue_limit:
            self.door.saturated = False
        return actions

    def _settle_staff(self, actions: list[Action], now: float) -> None:
        """Retire who may go, dismiss who is idle, start who is missing; tell the waiting when nobody will come."""
        for worker in self.worker_set.surplus_starters():
            actions += self._kill(worker, "scale", f"{self.worker_set.wanted} wanted")
        for worker in self.worker_set.leavers():
            actions += self.worker_set.drain(worker, now)
            self.hands.load_index.place(worker)
        for worker in self.worker_set.among(State.DRAINING):
            if worker.is_idle():
                if worker.lost:
                    actions += self._kill(worker, worker.reason, worker.detail)
                else:
                    self.worker_set.dismiss(worker, now)
                    actions.append(Stop(worker.id))
        actions += self.worker_set.plan(now)
        if self.worker_set.is_hopeless():
            for call in self.line:
                message = f"The pool's workers cannot start: {self.worker_set.gate.failed}"
                actions += self._end(call, errors.PoolFailed(message), now)

    # Looking

    @property
    def waiting(self) -> int:
        """Calls that have no slot yet, in the line or in a worker's hands."""
        return self.door.waiting

    def __repr__(self) -> str:
        workers = " ".join(f"{w.id}:{w.state}({w.load}/{w.slots})" for w in self.worker_set.workers.values())
        return f"<Pool {self.spec.name} [{workers} | {len(self.line)} waiting]>"

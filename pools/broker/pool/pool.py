"""The decisions of one pool, without I/O: facts go in, actions come out.

    submit / cancel / finished  ──┐                 ┌─▶ Assign, Cancel, Revoke, Fail          (calls)
    ready / exited / sampled    ──┼──▶  Pool  ──────┼─▶ Start, Stop, Kill, StartTemplate, ... (processes)
    apply / sweep / tick(now)   ──┘   (_settle)     └─▶ Emit                                  (events)

Nothing here awaits, reads a clock or opens a socket. A call takes a free slot immediately. Every other fact ends in
`_settle`, after which no call waits beside a free slot.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from random import Random
from typing import cast

from snakepit.pools.broker import errors
from snakepit.pools.broker.events import Kind
from snakepit.pools.broker.pool.actions import Action, Cancel, Fail
from snakepit.pools.broker.pool.batches import Batches
from snakepit.pools.broker.pool.calls import Call, CallQueue
from snakepit.pools.broker.pool.dispatcher import STALL_SECONDS, Admission, Dispatcher, Ended
from snakepit.pools.broker.pool.recycle_policy import deadline_exceeded, worker_lost
from snakepit.pools.broker.pool.retries import RetryRule
from snakepit.pools.broker.pool.times import Timers
from snakepit.pools.broker.pool.worker import READY, State, Worker
from snakepit.pools.broker.pool.worker_set import WorkerSet
from snakepit.pools.broker.ports import Exit
from snakepit.pools.broker.spec import PoolSpec


class Pool:
    def __init__(self, spec: PoolSpec, boot: str = "0", rng: Random | None = None) -> None:
        self.spec = spec
        self.queue = CallQueue()
        self.calls: dict[int, Call] = {}  # not answered, or still held by a worker
        self.timers = Timers()
        self.worker_set = WorkerSet(spec, boot, self.timers, rng or Random())
        self.template = self.worker_set.template
        self.accepted_count = self.finished_count = self.failed_count = self.retried_count = 0
        self.dispatcher = Dispatcher(self.timers, Batches(self.queue, self.timers))
        self.admission = Admission(self.worker_set, self.queue, self.dispatcher)
        self._retry_rule, self._workers_changed = RetryRule(spec.retry_budget), True

    # Facts about calls

    def submit(self, calls: Iterable[Call], now: float) -> list[Action]:
        """Accept calls, in this order, or refuse them with a Fail each."""
        actions: list[Action] = []  # not `list[Action]()`: to call an alias raises and drops an AttributeError inside
        waiting: list[Call] = []
        admission, dispatcher, batches = self.admission, self.dispatcher, self.dispatcher.batches
        for call in calls:
            refusal = admission.refusal(call, self.calls)
            if refusal and waiting:  # perhaps those before it need not wait in the queue
                self._settle(actions, now)
                refusal = admission.refusal(call, self.calls)
            if refusal:
                actions += admission.refuse(call, refusal)
                continue
            self.calls[call.id] = call
            self.accepted_count += 1
            if not (batches.times and batches.applies_to(call)) and (worker := dispatcher.load_index.least_loaded()):
                actions.append(dispatcher.assign(worker, [call], now))
            else:
                self.queue.put(call)
                waiting.append(call)
        if waiting:
            self._settle(actions, now)
        for call in waiting:
            if not call.worker and not call.answered:
                self.timers.set(call.id, min(call.deadline, now + self.spec.queue_timeout))
        return actions

    def cancel(self, number: int, now: float) -> list[Action]:
        """The caller does not need the answer any more. Unknown and answered calls do not change."""
        call = self.calls.get(number)
        if call is None or call.answered:
            return []
        error = errors.Cancelled(outcome=errors.UNKNOWN if call.worker else errors.NOT_STARTED)
        return self._settle(self._end(call, error, now), now)

    def finished(
        self, worker_id: str, number: int, now: float, *, ok: bool = True, seconds: float | None = None
    ) -> list[Action]:
        """A call has ended in its worker after so many seconds; the runner has answered the caller."""
        return self.finished_many(worker_id, ((number, seconds),), now, ok=ok)

    def finished_many(self, worker_id: str, ended: Ended, now: float, *, ok: bool = True) -> list[Action]:
        """As `finished`, for calls whose ends were reported together."""
        worker = self.worker_set.workers.get(worker_id)
        if worker is None or not (calls := self.dispatcher.finish(worker, ended)):
            return []
        answered, counts = 0, worker.growth.counts
        for call in calls:
            answered += not call.answered
            call.answered = True
            self.timers.clear(call.id)
            del self.calls[call.id]
            counts[call.command] += 1
            worker.lost -= call.lost
        self.finished_count += answered if ok else 0
        self.failed_count += 0 if ok else answered
        worker.served += len(calls)
        if worker.max_served is not None:  # age has a timer, memory is checked with each sample
            self.worker_set.mark_if_due(worker, now)
        self._workers_changed |= worker.state is not READY or bool(worker.reason)
        self.dispatcher.load_index.update(worker)
        resumed = self.worker_set.ended(calls) if self.worker_set.gate.suspects.deaths else ()  # nearly never
        return self._settle(list(resumed), now)

    def revoked(self, worker_id: str, numbers: Iterable[int], now: float) -> list[Action]:
        """The worker has not begun these calls and never will. The answer to a Revoke, or unasked."""
        worker = self.worker_set.workers.get(worker_id)
        if worker is None:
            return []
        actions: list[Action] = []
        # Newest first, since each goes to the head of the queue: the oldest ends up first.
        for call in self.dispatcher.revoked(worker, numbers, now):
            actions += self._wait_again(call, now)
        self._workers_changed |= worker.state is not READY or bool(worker.reason)
        return self._settle(actions, now)

    # Facts about workers

    def ready(self, worker_id: str, now: float) -> list[Action]:
        worker = self.worker_set.workers.get(worker_id)
        if worker is None or worker.state is not State.STARTING:
            return []  # it was ended while its hello was on the way
        actions = list(self.worker_set.ready(worker, now))
        self.dispatcher.load_index.update(worker)
        return self._settle(actions, now, workers_changed=True)

    def boot_failed(self, worker_id: str, message: str) -> None:
        """The adapter could not be loaded. The process exits by itself; `exited` uses this message."""
        if worker := self.workers.get(worker_id):
            worker.boot_failure = message

    def process_ended(self, worker_id: str) -> None:
        """The worker's process has ended: it gets no more calls. `exited` follows when its last messages are read."""
        if worker := self.worker_set.workers.get(worker_id):
            worker.process_ended = True
            self.dispatcher.load_index.remove(worker)

    def exited(
        self, worker_id: str, exit: Exit, now: float, *, begun: Collection[int] | None = None, evidence: str = ""
    ) -> list[Action]:
        """The worker's process is reaped. `begun` are the calls that it had begun; None: any may have."""
        worker = self.worker_set.workers.get(worker_id)
        if worker is None:
            return []
        orphans, prefetched, ran = self.dispatcher.orphans(worker, begun)
        actions = list(self.worker_set.exited(worker, exit, evidence, now, ran))
        started = tuple(worker.assigned) if begun is None else begun
        worker.assigned.clear()
        for call in orphans:
            if call.id in started or call.id not in prefetched:
                actions += self._orphaned(call, worker, call.id in started, evidence, now)
            else:
                actions += self._wait_again(call, now)
        for call, error in self.worker_set.gate.suspects.refused(self.queue, now):
            actions += self._end(call, error, now)
        return self._settle(actions, now, workers_changed=True)

    def fork_failed(self, worker_id: str, why: str, now: float) -> list[Action]:
        """The template did not fork this worker."""
        worker = self.worker_set.workers.get(worker_id)
        if worker is None:
            return []
        return self._settle(list(self.worker_set.fork_failed(worker, why, now)), now, workers_changed=True)

    def sampled(self, worker_id: str, memory_mb: float, now: float, *, trend: bool = True) -> list[Action]:
        worker = self.worker_set.workers.get(worker_id)
        if worker is None:
            return []
        actions = list(self.worker_set.sampled(worker, memory_mb, trend=trend))
        self.worker_set.mark_if_due(worker, now)
        self.dispatcher.load_index.update(worker)
        return self._settle(actions, now, workers_changed=bool(actions or worker.reason))

    def responsive(self, worker_id: str, now: float) -> list[Action]:
        """It answered a probe: one that was silent gets calls again."""
        worker = self.worker_set.workers.get(worker_id)
        if worker is None or not worker.silent:
            return []
        worker.silent = False
        self.dispatcher.load_index.update(worker)
        return self._settle([], now)

    def unresponsive(
        self, worker_id: str, detail: str, now: float, signal: str, *, known: bool = False
    ) -> list[Action]:
        """It does not answer probes. A busy worker within its deadlines may hold the GIL: that is reported once."""
        worker = self.worker_set.workers.get(worker_id)
        if worker is None or worker.state in (State.STARTING, State.STOPPING):
            return []
        if busy := signal == "event_loop" and not worker.is_idle():
            signal, detail = "busy", f"{detail}; it is busy within its deadline, and is not killed"
        event: Action = self.worker_set.emit(Kind.WORKER_UNHEALTHY, worker, signal, detail, level="warning")
        if busy:
            return [] if known else [event]
        return self._settle([event, *self._kill(worker, "health", detail)], now, workers_changed=True)

    # Facts about templates

    def template_loaded(self, name: str, seconds: float, now: float) -> list[Action]:
        return self._settle(list(self.template.loaded(name, seconds, now)), now, workers_changed=True)

    def template_refused(self, name: str, reason: str, why: str, now: float) -> list[Action]:
        """Workers cannot be forked from it: they are spawned."""
        return self._settle(list(self.template.refused(name, reason, why, self.spec, now)), now, workers_changed=True)

    def template_ended(self, name: str, exit: Exit, evidence: str, now: float) -> list[Action]:
        return self._settle(list(self.template.ended(name, exit, evidence, self.spec, now)), now, workers_changed=True)

    # Facts from operators and clocks

    def kill(self, worker: Worker, detail: str, now: float) -> list[Action]:
        return self._settle(self._kill(worker, "operator", detail), now, workers_changed=True)

    def apply(self, spec: PoolSpec, now: float) -> list[Action]:
        self.spec = spec
        self._retry_rule.budget.share = spec.retry_budget
        return self._settle(list(self.worker_set.apply(spec)), now, workers_changed=True)

    def recycle(self, worker_id: str, detail: str, now: float) -> list[Action]:
        """Replace one worker, or all (empty id), by an operator's order."""
        self.worker_set.gate.reset()
        chosen = [self.workers[worker_id]] if worker_id else list(self.workers.values())
        # For all workers the template is made again, too: the code may be new.
        actions = [] if worker_id else list(self.template.invalidate("operator"))
        actions += [action for worker in chosen for action in self.worker_set.replace(worker, "operator", detail)]
        return self._settle(actions, now, workers_changed=True)

    def sweep(self, now: float, horizon: float = 0.0) -> list[Action]:
        """Check the age, count and memory of every worker; the next sweep follows `horizon` seconds later."""
        self.worker_set.mark_due(now, now + horizon)
        return self._settle([], now, workers_changed=True)

    def close(self, now: float) -> list[Action]:
        """Refuse new calls, answer those that wait, finish those that run, then stop all workers."""
        actions = list(self.worker_set.close())
        for call in self.queue:
            actions += self._end(call, errors.ShuttingDown(), now)
        return self._settle(actions, now, workers_changed=True)

    def tick(self, now: float) -> list[Action]:
        """Do what is due; `timers` say when to call this."""
        actions: list[Action] = []
        for key in self.timers.due(now):
            if isinstance(key, int):
                actions += self._late(self.calls[key], now)
                continue
            kind, name = cast("tuple[str, str]", key)
            worker = self.worker_set.workers.get(name)
            self._workers_changed |= kind not in ("stall", "begin", "batch")
            if kind == "age":
                self.worker_set.mark_due(now)
            elif worker:
                actions += self._overdue(kind, worker, now)
            elif kind == "template":
                actions += self.template.timed_out(name, self.spec, now)
        return self._settle(actions, now)

    # Calls

    def _late(self, call: Call, now: float) -> list[Action]:
        """A call's timer is due: it waited too long, ran too long, or did not stop when asked to."""
        if call.answered:
            return self._overran(call, now)
        if call.worker or now >= call.deadline:
            return self._end(call, deadline_exceeded(call, self.worker_set.why_unserved()), now)
        message = self.worker_set.describe_wait()
        return self._end(call, errors.QueueTimeout(message, retry_after=self.admission.retry_after()), now)

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
            if call.batch:
                call.batch.grace_ends = now + self.spec.cancel_grace
        else:
            self.queue.remove(call.id)
            self.timers.clear(call.id)
            del self.calls[call.id]
        return actions

    def _overran(self, call: Call, now: float) -> list[Action]:
        """The call did not stop when asked to. A process can be killed; a thread cannot, so its slot is lost."""
        worker = self.worker_set.workers[call.worker]
        if not worker.runs(call) or (call.batch and call.batch.has_time(now)):
            # It is only prefetched, or its batch has calls with time left: they must go on.
            self.timers.set(call.id, now + max(STALL_SECONDS, self.spec.cancel_grace))
            return []
        detail = f"call {call.id} of {call.command} did not stop within {self.spec.cancel_grace:g} s"
        self._workers_changed = True
        if worker.slots == 1:
            return self._kill(worker, "overrun", detail)
        if call.batch and not call.batch.lose():
            return []
        call.lost = True
        worker.lost += 1
        message = f"{detail}; {worker.lost} of {worker.slots} slots are lost"
        self.worker_set.mark_if_due(worker, now)
        return [self.worker_set.emit(Kind.SLOT_LOST, worker, "overrun", message, level="warning")]

    def _orphaned(self, call: Call, worker: Worker, begun: bool, evidence: str, now: float) -> list[Action]:
        """A call's worker died: drop the call, run it again, or answer it with an error."""
        call.worker = ""
        call.begun |= begun
        self.timers.clear(call.id)
        if call.answered:
            del self.calls[call.id]
            return []
        final = self.worker_set.closing or call.command in self.worker_set.gate.suspects.suspended
        if not final and self._retry_rule.grant(call, begun=begun, accepted=self.accepted_count):
            self.retried_count += 1
            self.queue.put(call, first=True)
            self.timers.set(call.id, min(call.deadline, now + self.spec.queue_timeout))
            why = "it is idempotent" if begun else "it had not begun"
            return [self.worker_set.emit(Kind.CALL_RETRIED, worker, "worker_died", f"call {call.id} runs again: {why}")]
        call.answered = True
        self.failed_count += 1
        del self.calls[call.id]
        return [Fail(call, worker_lost(worker, call.begun, evidence))]

    def _wait_again(self, call: Call, now: float) -> list[Action]:
        """Undo a prefetch: the call never began."""
        call.worker, call.prefetched, call.checked, call.batch = "", False, False, None
        call.attempts -= 1
        if call.answered:
            self.timers.clear(call.id)
            del self.calls[call.id]
            return []
        self.queue.put(call, first=True)
        if self.worker_set.closing:
            return self._end(call, errors.ShuttingDown(), now)
        self.timers.set(call.id, min(call.deadline, now + self.spec.queue_timeout))
        return []

    # Workers

    def _overdue(self, kind: str, worker: Worker, now: float) -> list[Action]:
        if kind in ("stall", "begin"):
            revoke = self.dispatcher.revoke_stalled if kind == "stall" else self.dispatcher.revoke_unbegun
            return revoke(worker, now)
        if kind == "boot":
            return self._kill(worker, "startup_timeout", f"not ready within {self.spec.startup_timeout:g} s")
        if kind == "drain":
            return self._kill(worker, worker.reason, f"{worker.detail}; {worker.load} calls left at the drain deadline")
        return self._kill(worker, worker.reason, "did not exit when asked to")

    def _kill(self, worker: Worker, reason: str, detail: str) -> list[Action]:
        actions = list(self.worker_set.kill(worker, reason, detail))
        self.dispatcher.load_index.update(worker)
        return actions

    # The one place that decides about waiting calls and about the number of workers

    def _settle(self, actions: list[Action], now: float, *, workers_changed: bool = False) -> list[Action]:
        if workers_changed or self._workers_changed:
            self._workers_changed = False
            self._settle_workers(actions, now)
        queue, dispatcher = self.queue, self.dispatcher
        while queue.calls and (match := dispatcher.next_assignment(queue, now)):
            actions.append(dispatcher.assign(*match, now))
        if self.admission.saturated and self.waiting < self.spec.queue_limit:
            self.admission.saturated = False
        return actions

    def _settle_workers(self, actions: list[Action], now: float) -> None:
        """Drain due workers, stop idle drained ones, start missing ones; fail calls if none can start."""
        worker_set = self.worker_set
        for worker in worker_set.surplus_starts():
            actions += self._kill(worker, "scale", f"{worker_set.target_size} wanted")
        for worker in worker_set.next_to_drain():
            actions += worker_set.drain(worker, now)
            self.dispatcher.load_index.update(worker)
        actions += worker_set.stop_idle(now)
        actions += worker_set.start_missing(now)
        if worker_set.refuses(now):
            for call in self.queue:
                actions += self._end(call, worker_set.pool_failed(now), now)

    @property
    def waiting(self) -> int:
        """Calls that have no slot yet, in the queue or prefetched."""
        return self.admission.waiting

    @property
    def workers(self) -> dict[str, Worker]:
        return self.worker_set.workers

    def __repr__(self) -> str:
        return f"<Pool {self.spec.name} {list(self.workers.values())} {len(self.queue)} waiting>"

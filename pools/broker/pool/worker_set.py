"""The workers of one pool: how many there are, which one is replaced, which one is late, what a death means.

This module counts processes; the pool counts calls. Every replacement, whatever its reason, goes through
`start_missing`: the successor first (`max_surge`), never fewer than `size - max_unavailable` ready. A worker whose age
ends within the time that a start takes `expires_soon`: its successor starts, and it serves until it is due.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from random import Random
from typing import Any

from snakepit.pools.broker.errors import PoolFailed
from snakepit.pools.broker.events import Event, Kind
from snakepit.pools.broker.pool.actions import Action, Emit, Kill, Start, Stop
from snakepit.pools.broker.pool.calls import Call
from snakepit.pools.broker.pool.recycle_policy import (
    OUT_OF_MEMORY,
    above_limit,
    describe_exit,
    due_at,
    recycle_reason,
    successor_at,
)
from snakepit.pools.broker.pool.start_gate import StartGate
from snakepit.pools.broker.pool.template_state import PoolTemplate
from snakepit.pools.broker.pool.times import Timers
from snakepit.pools.broker.pool.worker import State, Worker
from snakepit.pools.broker.ports import Exit
from snakepit.pools.broker.spec import PoolSpec
from snakepit.pools.broker.stats.memory_growth import MemoryGrowth
from snakepit.pools.broker.stats.startup_times import StartupTimes

PRESENT = (State.STARTING, State.READY, State.DRAINING)
HUNG = frozenset({"overrun", "lost_slots", "health", "startup_timeout"})  # kills of workers whose stacks show the cause
STOP_GRACE = 5.0  # seconds that an idle worker has for its teardown


class WorkerSet:
    def __init__(self, spec: PoolSpec, boot: str, timers: Timers, rng: Random) -> None:
        self.spec = spec
        self.generation = 1
        self.closing = False
        self.workers: dict[str, Worker] = {}
        self.gate = StartGate(rng)
        self.startup_times = StartupTimes()
        self.template = PoolTemplate(spec.name, boot, timers)
        self.growth = MemoryGrowth()
        self.died = 0
        self.recycled = 0
        self._boot = boot  # part of every id, so that ids of two lives of a broker differ
        self._count = 0
        self._timers = timers
        self._rng = rng
        self._horizon = float("-inf")  # until when ages have a timer; the next sweep moves it on

    @property
    def target_size(self) -> int:
        return 0 if self.closing else self.spec.size

    def among(self, *states: State) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.state in states]

    def slots_ready(self) -> int:
        """Return the slots of ready workers that are not lost."""
        return sum(worker.slots - worker.lost for worker in self.workers.values() if worker.state is State.READY)

    def is_hopeless(self) -> bool:
        """Whether no worker serves and none is likely to, soon."""
        return bool(self.gate.failed) and not any(w.state is State.READY for w in self.workers.values())

    def refuses(self, now: float) -> bool:
        """Whether calls are refused: no worker serves, and none is likely to before they have waited too long."""
        return self.is_hopeless() and not self.gate.opens_within(self.spec.queue_timeout, self.spec, now)

    def pool_failed(self, now: float) -> PoolFailed:
        """Return the error of a call of a pool that refuses: why, and when it tries another start."""
        after = self.gate.retry_after(now)
        when = f"; it tries again in {after:g} s" if self.gate.failed and not self.gate.blocked else ""
        message = f"The pool's workers cannot start: {self.gate.failed.rstrip('.')}{when}."
        return PoolFailed(message, retry_after=after)

    # Facts

    def ready(self, worker: Worker, now: float) -> Iterator[Action]:
        worker.move(State.READY)
        worker.ready_at = now
        self._timers.clear(("boot", worker.id))
        worker.jitter_factor = 1.0 + self.spec.jitter * self._rng.random()
        self._set_limits(worker)
        took = now - worker.born
        if worker.generation == self.generation:
            self.startup_times.record(took)
        self._set_age_timer(now)
        numbers = {"seconds": round(took, 3), "profile": str(self.spec.profile), "capacity": worker.slots}
        yield self.emit(Kind.WORKER_STARTED, worker, message=f"ready {took:.2f} s after its start", data=numbers)
        if recovered := self.gate.succeeded():
            message = f"a worker is ready again; before: {recovered}"
            yield self.emit(Kind.POOL_RECOVERED, reason="started", message=message)

    def exited(
        self, worker: Worker, exit: Exit, evidence: str, now: float, commands: Collection[str] = ()
    ) -> Iterator[Action]:
        """The process is reaped; `evidence` is its last output, `commands` those that it was running."""
        was, how = worker.state, describe_exit(exit, at_work=worker.ready_at > 0.0)
        worker.out_of_memory = exit.out_of_memory and not worker.killed
        self._forget(worker)
        numbers: dict[str, Any] = {
            "exit_code": exit.code,
            "signal": exit.signal,
            "served": worker.served,
            "lived": round(now - worker.born, 3),
            "memory_mb": worker.memory_mb,
            "mb_per_1000_calls": None if worker.growth.mb is None else round(worker.growth.mb, 3),
            "output": evidence,
            "assigned": len(worker.assigned),
        }
        if exit.stacks:
            numbers["stacks"] = exit.stacks
        if was is State.STOPPING and worker.reason != "startup_timeout":
            self.recycled += worker.reason != "shutdown"
            detail = f"{worker.reason}: {worker.detail}" if worker.detail else worker.reason
            message = f"recycled, {detail}; lived {numbers['lived']:.0f} s, served {worker.served}"
            yield self.emit(Kind.WORKER_RECYCLED, worker, message=message, data=numbers)
        elif worker.ready_at == 0.0:
            yield from self._boot_failed(worker, worker.detail or worker.boot_failure or how, numbers, now)
        else:
            self.died += 1
            message = f"died at work ({was}), {how}"
            reason = OUT_OF_MEMORY if worker.out_of_memory else "crash"
            yield self.emit(Kind.WORKER_DIED, worker, reason, message, level="error", data=numbers)
            failed, suspended = self.gate.died(self.spec, how, now, commands)
            for name in suspended:
                error = self.gate.suspects.error(name, now)
                data = {"command": name, "seconds": error.retry_after}
                yield self.emit(Kind.COMMAND_SUSPENDED, None, "crash_loop", error.message, level="error", data=data)
            if failed:
                yield self.emit(Kind.POOL_FAILED, reason="crash_loop", message=self.gate.failed, level="error")

    def ended(self, calls: Iterable[Call]) -> Iterator[Action]:
        """Calls ended without a death: a command whose trial this was is resumed."""
        for name in self.gate.suspects.ended(calls):
            message = f"a call of `{name}` ended without the death of its worker"
            yield self.emit(Kind.COMMAND_RESUMED, None, "trial", message, data={"command": name})

    def fork_failed(self, worker: Worker, why: str, now: float) -> Iterator[Action]:
        """The template did not fork it. None of its code ran, so this does not count as a failed start."""
        self._forget(worker)
        yield from self.template.fork_failed(worker.template, why, self.spec, now)

    def _forget(self, worker: Worker) -> None:
        for kind in ("boot", "drain", "stop"):
            self._timers.clear((kind, worker.id))
        worker.move(State.GONE)
        del self.workers[worker.id]

    def _boot_failed(self, worker: Worker, why: str, numbers: dict[str, Any], now: float) -> Iterator[Action]:
        message = f"died before it was ready, {why}"
        reason = OUT_OF_MEMORY if worker.out_of_memory else "boot_failure"
        yield self.emit(Kind.WORKER_DIED, worker, reason, message, level="error", data=numbers)
        if self.gate.boot_failed(self.spec, why, now):
            yield self.emit(Kind.POOL_FAILED, reason="boot_failure", message=self.gate.failed, level="error")

    def apply(self, spec: PoolSpec) -> Iterator[Action]:
        """Take a new definition; workers that cannot serve it are replaced."""
        new_workers = spec.needs_new_workers(self.spec)
        new_ages = (spec.ttl, spec.min_lifetime) != (self.spec.ttl, self.spec.min_lifetime)
        self.spec = spec
        self.gate.reset()
        for worker in self.among(State.READY):
            self._set_limits(worker)
            worker.expires_soon = worker.expires_soon and not new_ages  # the next sweep decides again
        if new_workers:
            self.generation += 1
            self.startup_times.forget()
            yield from self.template.invalidate("definition")
            self.growth = MemoryGrowth()
            for worker in tuple(self.workers.values()):
                yield from self.replace(worker, "definition", f"generation {self.generation} is in force")

    def close(self) -> Iterator[Action]:
        self.closing = True
        yield from self.template.invalidate("shutdown")
        for worker in self.among(State.STARTING):
            yield from self.kill(worker, "shutdown", "the pool is shutting down")
        for worker in self.among(State.READY):
            worker.reason = worker.reason or "shutdown"

    # Which workers are due

    def mark_if_due(self, worker: Worker, now: float) -> None:
        """Mark a ready worker that is due, or will be within the time that a start takes."""
        if worker.state is not State.READY or worker.reason:
            return
        if why := recycle_reason(worker, self.spec, now, self.startup_times.expected):
            worker.reason, worker.detail = why
            return
        if worker.expires_soon:
            return
        starts = successor_at(worker, self.spec, self.startup_times.expected)
        if starts is not None and now >= starts:
            # For good: a shorter start that is learned meanwhile must not make its successor one too many.
            worker.expires_soon = True
            self._set_age_timer(now)

    def mark_due(self, now: float, horizon: float | None = None) -> None:
        """Mark every worker that is due. A sweep also looks ahead: ages that end before its `horizon` get a timer."""
        if horizon is not None:
            self._horizon = horizon
        for worker in self.workers.values():
            self.mark_if_due(worker, now)
        self._set_age_timer(now)

    def _set_age_timer(self, now: float) -> None:
        """One timer for the pool: the next moment at which a worker is due, or its successor has to start.

        After the next sweep, only workers whose successor has started have a timer.
        """
        moments = []
        for worker in self.among(State.READY):
            lead = 0.0 if worker.expires_soon else self.startup_times.expected
            moment = successor_at(worker, self.spec, lead)
            if moment is not None and (worker.expires_soon or moment <= self._horizon):
                moments.append(moment)
        if moments:
            self._timers.set(("age", self.spec.name), max(now, min(moments)))
        else:
            self._timers.clear(("age", self.spec.name))

    def _set_limits(self, worker: Worker) -> None:
        spec = self.spec
        worker.ttl = None if spec.ttl is None else spec.ttl * worker.jitter_factor
        worker.max_served = None if spec.max_requests is None else round(spec.max_requests * worker.jitter_factor)

    def replace(self, worker: Worker, reason: str, detail: str = "") -> Iterator[Action]:
        """Mark a worker for replacement. One that is still starting has no calls and is killed."""
        if worker.state is State.STARTING:
            yield from self.kill(worker, reason, detail)
        elif worker.state is State.READY and not worker.reason:
            worker.reason, worker.detail = reason, detail

    def sampled(self, worker: Worker, memory_mb: float, *, trend: bool = True) -> Iterator[Action]:
        """Compare a worker's memory with the limits. `trend`: it also counts as a sample of its growth."""
        worker.memory_mb = memory_mb
        soft, hard = self.spec.memory_soft_mb, self.spec.memory_hard_mb
        worker.above_soft = worker.above_soft + 1 if soft is not None and memory_mb > soft else 0
        if trend and worker.generation == self.generation and worker.state in (State.READY, State.DRAINING):
            self.growth.sampled(worker.growth, memory_mb, idle=not worker.assigned)
        too_much = hard is not None and memory_mb > hard
        if too_much or worker.above_soft:
            worker.leak = self.growth.describe(worker.growth)
        if too_much and worker.state in (State.READY, State.DRAINING):
            yield from self.kill(worker, "memory_hard", above_limit(worker, hard))

    def kill(self, worker: Worker, reason: str, detail: str) -> Iterator[Action]:
        if worker.state is State.STOPPING:
            if not worker.killed:  # it was asked to exit and does not
                worker.killed = True
                yield Kill(worker.id, stacks=True)
            return
        worker.reason, worker.detail, worker.killed = reason, detail, True
        hangs = reason in HUNG or worker.state is State.DRAINING
        worker.move(State.STOPPING)
        yield Kill(worker.id, stacks=hangs)
        yield self.emit(Kind.WORKER_KILLED, worker, message=f"killed, {reason}: {detail}", level="warning")

    # Starts and drains

    def start_missing(self, now: float) -> Iterator[Action]:
        """Start missing workers, as many as the gate and the surge allow."""
        present = self.among(*PRESENT)
        starting = sum(worker.state is State.STARTING for worker in present)
        fresh = starting + sum(worker.stays for worker in present)
        missing = min(self.target_size - fresh, self.target_size + self.spec.max_surge - len(present))
        if missing <= 0:
            self._timers.clear(("gate", self.spec.name))
            return
        if not self.gate.blocked:
            yield from self.template.ensure(self.spec, now)
        if self.template.is_loading:
            return  # when it is ready, refused or late, this is called again
        forked = self.template.is_ready
        allowed = self.gate.allowed(self.spec, starting, now, forked=forked)
        started = min(missing, allowed)
        leaving = [worker for worker in present if worker.state is not State.STARTING and not worker.stays][starting:]
        for number in range(started):
            self._count += 1
            worker = Worker(f"{self.spec.name}-{self._boot}-{self._count}", self.generation, self.spec.slots, born=now)
            worker.template = self.template.id if forked else ""
            self.workers[worker.id] = worker
            self._timers.set(("boot", worker.id), now + self.spec.startup_timeout)
            self.gate.started(self.spec, now)
            yield Start(worker.id, worker.template)
            yield self._starting(worker, leaving[number] if number < len(leaving) else None, fresh + number, now)
        opens = self.gate.opens_at(self.spec, starting + started, now, forked=forked)
        if missing > allowed and opens is not None:
            self._timers.set(("gate", self.spec.name), opens)

    def _starting(self, worker: Worker, leaves: Worker | None, fresh: int, now: float) -> Emit:
        """The event of a start: which worker it replaces, or that one is missing."""
        if leaves is None:
            message = f"starts, {fresh} of {self.target_size} workers are there"
            return self.emit(Kind.WORKER_STARTING, worker, "size", message)
        if leaves.reason:
            reason, why = leaves.reason, f"{leaves.reason}: {leaves.detail}"
        else:
            left = (due_at(leaves, self.spec) or now) - now
            reason, why = "ttl", f"due in {left:.1f} s; a start takes {self.startup_times.expected:.1f} s"
        data = {"replaces": leaves.id, "load_seconds": round(self.startup_times.expected, 3)}
        return self.emit(Kind.WORKER_STARTING, worker, reason, f"starts in place of {leaves.id}, {why}", data=data)

    def next_to_drain(self) -> list[Worker]:
        """Return the ready workers whose turn to drain has come, oldest first, and those above the desired number."""
        ready = self.among(State.READY)
        spare = len(ready) - max(0, self.target_size - self.spec.max_unavailable)
        marked = [worker for worker in ready if worker.reason]
        # The successors of workers that expire soon are no surplus: they wait until those are due.
        early = min(sum(worker.expires_soon and not worker.reason for worker in ready), self.spec.max_surge)
        surplus = len(ready) - len(marked) - early - self.target_size
        unmarked = sorted((w for w in ready if not w.reason), key=lambda w: (not w.expires_soon, w.load, w.born))
        for worker in unmarked[: max(0, surplus)]:
            worker.reason, worker.detail = "scale", f"{self.target_size} wanted"
            marked.append(worker)
        return marked[: max(0, spare)]

    def surplus_starts(self) -> list[Worker]:
        """Return workers that start although enough others are there: the pool was made smaller meanwhile."""
        starting = self.among(State.STARTING)
        fresh = len(starting) + sum(worker.stays for worker in self.among(State.READY))
        return starting[: max(0, min(len(starting), fresh - self.target_size))]

    def drain(self, worker: Worker, now: float) -> Iterator[Action]:
        worker.move(State.DRAINING)
        self._timers.set(("drain", worker.id), now + self.spec.drain_timeout)
        yield self.emit(Kind.WORKER_DRAINING, worker, message=f"drains, {worker.reason}: {worker.detail}")

    def stop_idle(self, now: float) -> Iterator[Action]:
        """Ask idle draining workers to exit; one with lost slots cannot, and is killed."""
        for worker in self.among(State.DRAINING):
            if worker.is_idle() and worker.lost:
                yield from self.kill(worker, worker.reason, worker.detail)
            elif worker.is_idle():
                worker.move(State.STOPPING)
                self._timers.clear(("drain", worker.id))
                self._timers.set(("stop", worker.id), now + STOP_GRACE)
                yield Stop(worker.id)

    def why_unserved(self) -> str:
        """Why no worker can start, while none serves; empty: a worker serves, or no start has failed."""
        return "" if self.among(State.READY) else self.gate.stuck.rstrip(".")

    def describe_wait(self) -> str:
        """Return why a call got no worker within the pool's queue_timeout."""
        within = f"within {self.spec.queue_timeout:g} s"
        if why := self.why_unserved():
            return f"No worker became ready {within}. The pool's workers cannot start: {why}."
        return f"No worker was free {within}: {self.describe_load()}."

    def describe_load(self) -> str:
        """Return why a call waits: "2 of 2 slots busy, 1 starting"."""
        ready = self.among(State.READY)
        slots = sum(worker.slots for worker in ready)
        parts = [f"{sum(worker.load for worker in ready)} of {slots} slots busy"]
        parts += [
            f"{count} {state}"
            for state in (State.STARTING, State.DRAINING, State.STOPPING)
            if (count := len(self.among(state)))
        ]
        return ", ".join(parts)

    def emit(
        self,
        kind: Kind,
        worker: Worker | None = None,
        reason: str = "",
        message: str = "",
        *,
        level: str = "info",
        data: Mapping[str, Any] | None = None,
    ) -> Emit:
        """Make the action that publishes an event of this pool."""
        name = worker.id if worker else ""
        reason = reason or (worker.reason if worker else "")
        return Emit(Event(kind, self.spec.name, name, reason, message, level, data or {}))

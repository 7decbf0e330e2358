"""Random facts against the pool's promises.

The model keeps its own, simpler books: which calls are open, who holds what, what was answered. After every fact the
promises are checked; at the end the pool must come back to its size and answer everybody.
"""

from __future__ import annotations

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pools.broker.actions import Assign, Cancel, Dismiss, Fail, Kill, Prepare, Start, Stop
from pools.broker.call import Call
from pools.broker.pool import Pool
from pools.broker.ports import Exit
from pools.broker.spec import PoolSpec
from pools.broker.worker import State

specs = st.builds(
    PoolSpec,
    name=st.just("model"),
    adapter=st.just("model"),
    profile=st.sampled_from(["process", "thread"]),
    preload=st.sampled_from(["off", "auto"]),
    size=st.integers(1, 4),
    threads=st.integers(1, 9),
    queue_limit=st.integers(0, 5),
    queue_timeout=st.floats(0.5, 20),
    cancel_grace=st.floats(0, 3),
    startup_timeout=st.floats(1, 30),
    startup_batch=st.integers(1, 3),
    startup_delay=st.floats(0, 2),
    ttl=st.none() | st.floats(1, 20),
    max_requests=st.none() | st.integers(1, 4),
    min_lifetime=st.floats(0, 5),
    memory_soft_mb=st.none() | st.just(100.0),
    memory_hard_mb=st.none() | st.just(200.0),
    max_surge=st.integers(1, 2),
    drain_timeout=st.floats(0, 10),
    boot_budget=st.integers(1, 4),
    death_budget=st.none() | st.integers(1, 5),
)


class PoolModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.number = 0
        self.open: set[int] = set()  # submitted, not answered
        self.answered: set[int] = set()
        self.running: dict[str, set[int]] = {}  # what each process really runs
        self.processes: set[str] = set()
        self.asked_to_leave: set[str] = set()
        self.killed: set[str] = set()
        self.loading: set[str] = set()  # templates
        self.templates: set[str] = set()  # that have loaded

    @initialize(spec=specs, seed=st.integers(0, 99))
    def build(self, spec: PoolSpec, seed: int) -> None:
        self.pool = Pool(spec, "m", Random(seed))
        self.do(self.pool.sweep(self.now))

    # The world that carries actions out

    def do(self, actions: list[object]) -> None:
        for action in actions:
            match action:
                case Prepare(template):
                    assert not self.loading | self.templates, "two templates at once"
                    self.loading.add(template)
                case Dismiss(template):
                    assert template in self.loading | self.templates
                    self.loading.discard(template)
                    self.templates.discard(template)
                case Start(worker, template):
                    assert worker not in self.processes
                    assert not template or template in self.templates
                    assert not self.templates or template, "spawned beside a template"
                    self.processes.add(worker)
                    self.running[worker] = set()
                case Assign(call, worker):
                    assert call.id in self.open, "an answered call was assigned"
                    assert worker in self.processes
                    assert worker not in self.killed | self.asked_to_leave
                    self.running[worker].add(call.id)
                case Fail(call, _):
                    self.answer(call.id)
                case Stop(worker):
                    assert not self.running[worker], "an occupied worker was sent away"
                    self.asked_to_leave.add(worker)
                case Kill(worker):
                    self.killed.add(worker)
                case Cancel(call, worker, _):
                    assert call.id in self.running[worker]
                    assert call.id in self.answered

    def answer(self, number: int) -> None:
        assert number in self.open, f"call {number} was answered twice or never asked"
        self.open.discard(number)
        self.answered.add(number)

    def die(self, worker: str, exit: Exit, begun: set[int] | None = None) -> None:
        self.processes.discard(worker)
        self.killed.discard(worker)
        self.asked_to_leave.discard(worker)
        self.running.pop(worker)
        self.do(self.pool.gone(worker, exit, self.now, begun=begun))

    def live(self, *states: State) -> list[str]:
        return [worker.id for worker in self.pool.force.workers.values() if worker.state in states]

    # Facts

    @rule(
        patience=st.floats(0.1, 30),
        priority=st.integers(-1, 1),
        size=st.integers(0, 2000),
        idempotent=st.booleans(),
    )
    def submit(self, patience: float, priority: int, size: int, idempotent: bool) -> None:
        self.number += 1
        call = Call(
            self.number,
            "run",
            arrived=self.now,
            deadline=self.now + patience,
            size=size,
            priority=priority,
            idempotent=idempotent,
        )
        self.open.add(call.id)
        self.do(self.pool.submit(call, self.now))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.do(self.pool.cancel(data.draw(st.sampled_from(sorted(self.open))), self.now))

    @precondition(lambda self: any(self.running.values()))
    @rule(data=st.data(), ok=st.booleans())
    def finish(self, data: st.DataObject, ok: bool) -> None:
        choices = [(worker, call) for worker, calls in sorted(self.running.items()) for call in sorted(calls)]
        worker, call = data.draw(st.sampled_from(choices))
        self.running[worker].discard(call)
        if call in self.open:
            self.answer(call)
        self.do(self.pool.finished(worker, call, self.now, ok=ok))

    @precondition(lambda self: self.live(State.STARTING))
    @rule(data=st.data())
    def become_ready(self, data: st.DataObject) -> None:
        self.do(self.pool.ready(data.draw(st.sampled_from(self.live(State.STARTING))), self.now))

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), knows=st.booleans())
    def crash(self, data: st.DataObject, knows: bool) -> None:
        worker = data.draw(st.sampled_from(sorted(self.processes)))
        held = sorted(self.running[worker])
        begun = set(data.draw(st.lists(st.sampled_from(held)))) if held and knows else None
        self.die(worker, Exit(signal=11), begun)

    @precondition(lambda self: self.killed | self.asked_to_leave)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.die(data.draw(st.sampled_from(sorted(self.killed | self.asked_to_leave))), Exit(code=0))

    @precondition(lambda self: self.loading)
    @rule(how=st.sampled_from(["loaded", "no_preload", "unsafe", "load_failed"]))
    def template_speaks(self, how: str) -> None:
        template = self.loading.pop()
        if how == "loaded":
            self.templates.add(template)
            self.do(self.pool.template_loaded(template, 1.0, self.now))
        else:
            self.do(self.pool.template_refused(template, how, "because", self.now))
            self.do(self.pool.template_ended(template, Exit(code=3), "", self.now))

    @precondition(lambda self: self.loading | self.templates)
    @rule()
    def template_dies(self) -> None:
        (template,) = self.loading | self.templates
        self.loading.clear()
        self.templates.clear()
        self.do(self.pool.template_ended(template, Exit(signal=9), "", self.now))

    @precondition(lambda self: self.live(State.STARTING))
    @rule(data=st.data())
    def is_not_forked(self, data: st.DataObject) -> None:
        forked = [name for name in self.live(State.STARTING) if self.pool.force.workers[name].template]
        if forked:
            worker = data.draw(st.sampled_from(forked))
            self.processes.discard(worker)
            self.running.pop(worker)
            self.do(self.pool.unforked(worker, "it ended as it was born", self.now))

    @rule(seconds=st.floats(0, 10))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.pool.tick(self.now))

    @precondition(lambda self: self.live(State.READY))
    @rule(data=st.data(), memory=st.sampled_from([50.0, 150.0, 250.0]))
    def sample(self, data: st.DataObject, memory: float) -> None:
        worker = data.draw(st.sampled_from(self.live(State.READY)))
        self.do(self.pool.sampled(worker, memory, self.now))

    @rule(horizon=st.floats(0, 30))
    def sweep(self, horizon: float) -> None:
        self.do(self.pool.sweep(self.now, horizon))

    @precondition(lambda self: self.live(State.READY))
    @rule(data=st.data())
    def go_silent(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.live(State.READY)))
        self.do(self.pool.unresponsive(worker, "silent", self.now, "event_loop"))

    @rule(spec=specs)
    def redefine(self, spec: PoolSpec) -> None:
        self.do(self.pool.apply(spec, self.now))

    @rule()
    def recycle(self) -> None:
        self.do(self.pool.recycle("", "asked", self.now))

    # Promises

    @invariant()
    def never_over_capacity(self) -> None:
        for worker in self.pool.force.workers.values():
            assert len(worker.held) <= max(worker.slots, 0)

    @invariant()
    def no_call_is_lost(self) -> None:
        waiting = {call.id for call in self.pool.line}
        held = {call.id for w in self.pool.force.workers.values() for call in w.held.values() if not call.answered}
        assert self.open == waiting | held
        assert not waiting & held

    @invariant()
    def the_pool_knows_what_runs(self) -> None:
        held = {worker.id: set(worker.held) for worker in self.pool.force.workers.values()}
        assert held == self.running

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        if len(self.pool.line):
            assert not any(worker.has_room() for worker in self.pool.force.workers.values())

    @invariant()
    def the_waiting_are_bounded(self) -> None:
        # Calls that lost their worker go back to the line beyond its limit: they had been let in before.
        assert len(self.pool.line) <= 5 + self.pool.retried_count

    @invariant()
    def not_more_workers_than_size_and_surge(self) -> None:
        if not hasattr(self, "pool"):
            return
        present = self.live(State.STARTING, State.READY, State.DRAINING)
        fresh = [
            worker for worker in self.pool.force.workers.values() if worker.state is State.STARTING or not worker.reason
        ]
        spec = self.pool.spec
        started_by_this_spec = max(spec.size + spec.max_surge, self.most_before)
        assert len(present) <= started_by_this_spec or len(fresh) <= spec.size
        self.most_before = max(len(present), spec.size + spec.max_surge)

    most_before = 0

    @invariant()
    def every_open_call_has_an_alarm(self) -> None:
        if self.open:
            assert self.pool.next_alarm() is not None

    def teardown(self) -> None:
        """Left alone with a world that works, the pool answers everybody and comes back to its size."""
        if not hasattr(self, "pool"):
            return
        for _ in range(400):
            if self.loading:
                self.template_speaks("loaded")
            for worker in self.live(State.STARTING):
                self.do(self.pool.ready(worker, self.now))
            for worker in sorted(self.killed | self.asked_to_leave):
                self.die(worker, Exit(code=0))
            for worker, calls in sorted(self.running.items()):
                for call in sorted(calls):
                    calls.discard(call)
                    if call in self.open:
                        self.answer(call)
                    self.do(self.pool.finished(worker, call, self.now))
            alarm = self.pool.next_alarm()
            if alarm is not None:
                self.now = max(self.now, alarm)
                self.do(self.pool.tick(self.now))
            if self.is_settled():
                break
        assert not self.open, f"somebody was never answered: {self.open} {self.pool!r}"
        assert self.is_settled(), repr(self.pool)
        assert not self.pool.calls
        assert self.pool.timers.keys() <= {("age", self.pool.spec.name)}, "an alarm outlived its reason"

    def is_settled(self) -> bool:
        workers = self.pool.force.workers.values()
        ready = [worker for worker in workers if worker.stays]
        return not self.open and not any(self.running.values()) and len(ready) == self.pool.spec.size == len(workers)


PoolModel.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestPoolModel = PoolModel.TestCase

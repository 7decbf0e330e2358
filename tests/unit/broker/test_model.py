"""Random facts against the pool's promises.

The model keeps its own, simpler books: which calls are open, who holds what in which order, what was answered. A
process begins the first calls that it holds, as many as it has slots; the others are prefetched. After every
fact the promises are checked; at the end the pool must come back to its size and answer every call.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from snakepit.pools.broker.pool.actions import (
    Assign,
    Cancel,
    Fail,
    Kill,
    Revoke,
    Start,
    StartTemplate,
    Stop,
    StopTemplate,
)
from snakepit.pools.broker.pool.batches import BatchRule
from snakepit.pools.broker.pool.calls import Call
from snakepit.pools.broker.pool.dispatcher import STALL_SECONDS, has_room
from snakepit.pools.broker.pool.pool import Pool
from snakepit.pools.broker.pool.times import MIN_RUNS
from snakepit.pools.broker.pool.worker import State
from snakepit.pools.broker.ports import Exit
from snakepit.pools.broker.spec import PoolSpec

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
        self.holding: dict[str, list[int]] = {}  # what each process was given, in order; the first ones run
        self.revoking: dict[str, tuple[int, ...]] = {}  # calls whose Revoke is under way
        self.processes: set[str] = set()
        self.asked_to_leave: set[str] = set()
        self.killed: set[str] = set()
        self.loading: set[str] = set()  # templates
        self.templates: set[str] = set()  # that have loaded
        self.batch_of: dict[int, int] = {}  # of each call that a process holds; a call alone is a batch of one
        self.batches = 0
        self.beside: dict[int, float] = {}  # waiting calls, and when they were first seen beside a free slot

    @initialize(
        spec=specs,
        seed=st.integers(0, 99),
        limit=st.integers(2, 5),
        wait=st.sampled_from([0.0, 0.5, 3.0]),
        pays=st.booleans(),
    )
    def build(self, spec: PoolSpec, seed: int, limit: int, wait: float, pays: bool) -> None:
        self.pool = Pool(spec, "m", Random(seed))
        self.rule, self.pays = BatchRule(limit, wait), pays
        self.pool.dispatcher.batches.set_rules({"grouped": self.rule})
        for _ in range(MIN_RUNS):
            self.pool.dispatcher.run_times.record("short", 0.0001)
        self.do(self.pool.sweep(self.now))

    # The world that carries actions out

    def do(self, actions: list[object]) -> None:
        for action in actions:
            match action:
                case StartTemplate(template):
                    assert not self.loading | self.templates, "two templates at once"
                    self.loading.add(template)
                case StopTemplate(template):
                    assert template in self.loading | self.templates
                    self.loading.discard(template)
                    self.templates.discard(template)
                case Start(worker, template):
                    assert worker not in self.processes
                    assert not template or template in self.templates
                    assert not self.templates or template, "spawned beside a template"
                    self.processes.add(worker)
                    self.holding[worker] = []
                case Assign(calls, worker):
                    assert len({call.command for call in calls}) == 1
                    assert all(call.id in self.open for call in calls), "an answered call was assigned"
                    assert worker in self.processes
                    assert worker not in self.killed | self.asked_to_leave
                    self.begin_batch(worker, calls)
                case Fail(call, _):
                    self.answer(call.id)
                case Stop(worker):
                    assert not self.holding[worker], "an occupied worker was sent away"
                    self.asked_to_leave.add(worker)
                case Kill(worker):
                    self.killed.add(worker)
                case Cancel(call, worker, _):
                    assert call.id in self.holding[worker]
                    assert call.id in self.answered
                case Revoke(worker, calls):
                    assert worker not in self.revoking, "asked twice at once"
                    wanted = tuple(call.id for call in calls)
                    assert wanted == tuple(self.holding[worker][-len(wanted) :])
                    every = len(wanted) == len(self.holding[worker])  # of those, the ones that have begun stay
                    assert every or not set(wanted) & set(self.run_by(worker)), "a running call was to be revoked"
                    self.revoking[worker] = wanted

    def begin_batch(self, worker: str, calls: Sequence[Call]) -> None:
        together = calls[0].command == "grouped" and len(calls) > 1
        assert not together or len(calls) <= self.rule.limit
        for number, call in enumerate(calls):
            assert call.id not in self.batch_of, "a call is in two batches"
            self.batches += not (together and number)
            self.batch_of[call.id] = self.batches
        taken = {self.batch_of[call] for call in self.run_by(worker)}
        assert not together or len(taken) < self.slots[worker], "a batch was sent before a slot was free"
        self.holding[worker] += [call.id for call in calls]

    def let_go(self, worker: str, call: int) -> None:
        self.holding[worker].remove(call)
        del self.batch_of[call]

    def run_by(self, worker: str) -> list[int]:
        """The calls in its slots: a batch takes one of them."""
        found: list[int] = []
        seen: set[int] = set()
        for call in self.holding[worker]:
            seen.add(self.batch_of[call])
            if len(seen) > self.slots[worker]:
                break
            found.append(call)
        return found

    def answer(self, number: int) -> None:
        assert number in self.open, f"call {number} was answered twice or never asked"
        self.open.discard(number)
        self.answered.add(number)

    def die(self, worker: str, exit: Exit, begun: set[int] | None = None) -> None:
        self.processes.discard(worker)
        self.killed.discard(worker)
        self.asked_to_leave.discard(worker)
        for call in self.holding.pop(worker):
            del self.batch_of[call]
        self.revoking.pop(worker, None)
        self.do(self.pool.exited(worker, exit, self.now, begun=begun))

    @property
    def slots(self) -> dict[str, int]:
        return {worker.id: worker.slots for worker in self.pool.worker_set.workers.values()}

    def live(self, *states: State) -> list[str]:
        return [worker.id for worker in self.pool.worker_set.workers.values() if worker.state in states]

    # Facts

    @rule(
        patience=st.floats(0.1, 30),
        priority=st.integers(-1, 1),
        size=st.integers(0, 2000),
        idempotent=st.booleans(),
        command=st.sampled_from(["short", "short", "long", "grouped", "grouped"]),
        streams=st.sampled_from([False, False, False, True]),
        many=st.sampled_from([1, 1, 3, 9]),
        together=st.booleans(),
    )
    def submit(self, patience: float, many: int, together: bool, **fields: Any) -> None:
        calls = []
        for _ in range(many):
            self.number += 1
            calls.append(Call(self.number, arrived=self.now, deadline=self.now + patience, **fields))
            self.open.add(self.number)
        for batch in [calls] if together else [[call] for call in calls]:
            self.do(self.pool.submit(batch, self.now))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.do(self.pool.cancel(data.draw(st.sampled_from(sorted(self.open))), self.now))

    @precondition(lambda self: any(self.holding.values()))
    @rule(data=st.data(), ok=st.booleans())
    def finish(self, data: st.DataObject, ok: bool) -> None:
        choices = [(worker, call) for worker in sorted(self.holding) for call in self.run_by(worker)]
        self.end(*data.draw(st.sampled_from(choices)), ok)

    @precondition(lambda self: any(self.holding.values()))
    @rule(data=st.data())
    def some_end_together(self, data: st.DataObject) -> None:
        """A worker that has run several calls tells of them at once, in the order in which it ran them."""
        worker = data.draw(st.sampled_from([worker for worker in sorted(self.holding) if self.holding[worker]]))
        count = data.draw(st.integers(1, len(self.holding[worker])))
        ended = self.holding[worker][:count]
        told = [(call, self.seconds_of(call)) for call in ended]
        for call in ended:
            self.let_go(worker, call)
            if call in self.open:
                self.answer(call)
        self.do(self.pool.finished_many(worker, told, self.now))

    @precondition(lambda self: any(self.holding.values()))
    @rule()
    def everything_ends(self) -> None:
        for worker in sorted(self.holding):
            while self.holding[worker]:
                self.end(worker, self.holding[worker][0], True)

    def end(self, worker: str, call: int, ok: bool) -> None:
        seconds = self.seconds_of(call)
        self.let_go(worker, call)
        if call in self.open:
            self.answer(call)
        self.do(self.pool.finished(worker, call, self.now, ok=ok, seconds=seconds))

    def seconds_of(self, call: int) -> float:
        if self.pool.calls[call].command == "short":
            return 0.0001
        size = [*self.batch_of.values()].count(self.batch_of[call])
        return 0.5 if self.pays else 0.5 * size

    @precondition(lambda self: any(len(calls) > len(self.run_by(worker)) for worker, calls in self.holding.items()))
    @rule(data=st.data())
    def an_unbegun_one_ends(self, data: st.DataObject) -> None:
        """It was cancelled before its turn, and the worker reports its end."""
        choices = [(w, call) for w, calls in sorted(self.holding.items()) for call in calls[len(self.run_by(w)) :]]
        worker, call = data.draw(st.sampled_from(choices))
        if call in self.answered:
            self.let_go(worker, call)
            self.do(self.pool.finished(worker, call, self.now, ok=False))

    @precondition(lambda self: self.revoking)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        """Revoked calls that have not begun go back to the pool; the worker may have begun some of them meanwhile."""
        worker = data.draw(st.sampled_from(sorted(self.revoking)))
        self.confirm_revoked(worker, data.draw(st.integers(0, len(self.revoking[worker]))))

    def confirm_revoked(self, worker: str, begun: int) -> None:
        wanted = self.revoking.pop(worker)[begun:]
        unbegun = set(self.holding[worker]) - set(self.run_by(worker))
        revoked = [call for call in wanted if call in unbegun]
        for call in revoked:
            self.let_go(worker, call)
        self.do(self.pool.revoked(worker, revoked, self.now))

    @precondition(lambda self: self.live(State.STARTING))
    @rule(data=st.data())
    def become_ready(self, data: st.DataObject) -> None:
        self.do(self.pool.ready(data.draw(st.sampled_from(self.live(State.STARTING))), self.now))

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), knows=st.booleans())
    def crash(self, data: st.DataObject, knows: bool) -> None:
        worker = data.draw(st.sampled_from(sorted(self.processes)))
        slots = self.run_by(worker)
        begun = set(slots[: data.draw(st.integers(0, len(slots)))]) if knows else None
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
        forked = [name for name in self.live(State.STARTING) if self.pool.worker_set.workers[name].template]
        if forked:
            worker = data.draw(st.sampled_from(forked))
            self.processes.discard(worker)
            self.holding.pop(worker)
            self.do(self.pool.fork_failed(worker, "it ended as it was born", self.now))

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
        for worker in self.pool.worker_set.workers.values():
            assert worker.load <= worker.slots
            assert len(worker.assigned) == worker.load + worker.riders + worker.prefetched
            assert len(self.run_by(worker.id)) == worker.load + worker.riders if worker.id in self.holding else True

    @invariant()
    def no_call_is_lost(self) -> None:
        waiting = {call.id for call in self.pool.queue}
        assigned = {
            call.id for w in self.pool.worker_set.workers.values() for call in w.assigned.values() if not call.answered
        }
        assert self.open == waiting | assigned
        assert not waiting & assigned

    @invariant()
    def the_pool_knows_what_runs(self) -> None:
        assigned = {worker.id: list(worker.assigned) for worker in self.pool.worker_set.workers.values()}
        assert assigned == self.holding
        assert self.pool.dispatcher.prefetched == sum(
            worker.prefetched for worker in self.pool.worker_set.workers.values()
        )

    @invariant()
    def no_prefetched_call_waits_long(self) -> None:
        for worker in self.pool.worker_set.workers.values():
            if worker.state is not State.STOPPING and (waiting := worker.waiting()):
                revoking = worker.id in self.revoking
                assert revoking or self.now < waiting[0].assigned + STALL_SECONDS or self.rings_soon()

    def rings_soon(self) -> bool:
        due = self.pool.timers.next()
        return due is not None and due <= self.now + STALL_SECONDS

    @invariant()
    def only_short_calls_are_prefetched_and_never_behind_a_long_one(self) -> None:
        for worker in self.pool.worker_set.workers.values():
            for number, call in enumerate(worker.assigned.values()):
                if call.prefetched:
                    before = list(worker.assigned.values())[:number]
                    assert (call.command, call.streams) == ("short", False)
                    assert all(other.command == "short" and not other.streams for other in before)

    @invariant()
    def no_call_waits_beside_a_free_slot_except_for_its_batch_and_not_long(self) -> None:
        waiting = {call.id: call for call in self.pool.queue}
        if any(has_room(worker) for worker in self.pool.worker_set.workers.values()):
            for call in waiting.values():
                assert (call.command, call.streams) == ("grouped", False)
                assert self.now - self.beside.setdefault(call.id, self.now) <= self.rule.wait
                assert self.rule.wait, "a command without a wait waited"
        self.beside = {number: since for number, since in self.beside.items() if number in waiting}

    @invariant()
    def a_lane_has_the_waiting_calls_of_its_command(self) -> None:
        waiting = {call.id for call in self.pool.queue if call.command == "grouped" and not call.streams}
        assert waiting == {call.id for call in self.pool.queue.lanes["grouped"]}

    @invariant()
    def the_waiting_are_bounded(self) -> None:
        # Calls that lost their worker go back to the line beyond its limit: they had been let in before.
        # Calls beside a free slot wait for their batch only, and are let in until it is full.
        assert len(self.pool.queue) <= 5 + self.pool.retried_count + self.rule.limit

    @invariant()
    def not_more_workers_than_size_and_surge(self) -> None:
        if not hasattr(self, "pool"):
            return
        present = self.live(State.STARTING, State.READY, State.DRAINING)
        fresh = [
            worker
            for worker in self.pool.worker_set.workers.values()
            if worker.state is State.STARTING or not worker.reason
        ]
        spec = self.pool.spec
        started_by_this_spec = max(spec.size + spec.max_surge, self.most_before)
        assert len(present) <= started_by_this_spec or len(fresh) <= spec.size
        self.most_before = max(len(present), spec.size + spec.max_surge)

    most_before = 0

    @invariant()
    def every_open_call_has_a_timer(self) -> None:
        if self.open:
            assert self.pool.timers.next() is not None

    def teardown(self) -> None:
        """Without further faults, the pool answers every call and comes back to its size."""
        if not hasattr(self, "pool"):
            return
        for _ in range(400):
            if self.loading:
                self.template_speaks("loaded")
            for worker in self.live(State.STARTING):
                self.do(self.pool.ready(worker, self.now))
            for worker in sorted(self.killed | self.asked_to_leave):
                self.die(worker, Exit(code=0))
            for worker in sorted(self.revoking):
                self.confirm_revoked(worker, 0)
            for worker in sorted(self.holding):
                for call in self.run_by(worker):
                    self.end(worker, call, True)
            due = self.pool.timers.next()
            if due is not None:
                self.now = max(self.now, due)
                self.do(self.pool.tick(self.now))
            if self.is_settled():
                break
        assert not self.open, f"a call was never answered: {self.open} {self.pool!r}"
        assert self.is_settled(), repr(self.pool)
        assert not self.pool.calls
        # The check that a call begins is one timer of a worker, which no end of a call takes back.
        # So is the wait of a batch whose calls were cancelled.
        lasting = {
            ("age", self.pool.spec.name),
            ("batch", "grouped"),
            *(("begin", worker) for worker in self.pool.worker_set.workers),
        }
        assert self.pool.timers.keys() <= lasting, "a timer outlived its reason"

    def is_settled(self) -> bool:
        workers = self.pool.worker_set.workers.values()
        ready = [worker for worker in workers if worker.stays]
        return not self.open and not any(self.holding.values()) and len(ready) == self.pool.spec.size == len(workers)


PoolModel.TestCase.settings = settings(max_examples=150, stateful_step_count=60)
TestPoolModel = PoolModel.TestCase

"""The broker: routes calls to pools by name, applies the pools' definitions, and publishes events and snapshots."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from random import Random

from snakepit.pools.broker import errors
from snakepit.pools.broker.events import Event, Kind
from snakepit.pools.broker.handle import CallHandle, CountedReply
from snakepit.pools.broker.messages import Reply, Request, Timing
from snakepit.pools.broker.node import NodeFacts, NodeState, OpenSession
from snakepit.pools.broker.node_status import ListenerStatus
from snakepit.pools.broker.pool.preview import forecast
from snakepit.pools.broker.ports import Definition, Loaded, Ports, Template
from snakepit.pools.broker.quotas import Quotas
from snakepit.pools.broker.runner.deps import RunnerDeps
from snakepit.pools.broker.runner.runner import Runner
from snakepit.pools.broker.runner.worker_handle import WorkerHandle
from snakepit.pools.broker.snapshot import node_status, pool_status, worker_status
from snakepit.pools.broker.stats.usage import Usage, Usages
from snakepit.pools.broker.status import (
    BEAT,
    CLOCK_MISSING,
    NO_SWEEP_YET,
    NOT_READ,
    BrokerStatus,
    CommandInfo,
    NodeStatus,
    RecyclePlan,
    SweepResult,
    WorkerDump,
)
from snakepit.pools.broker.unknown_names import bounded, nearest
from snakepit.pools.broker.watch import WorkerWatch

APPLY_EVERY = 1.0  # seconds; a changed row is in force within two
MISSED_SWEEPS = 3  # intervals without a sweep after which the broker sweeps by itself
LAG_KEPT = 0.7  # share of the old figure that stays in the event loop's smoothed lag


class Broker:
    def __init__(self, facts: NodeFacts, ports: Ports, rng: Random | None = None) -> None:
        self.facts = facts
        self.ports = ports
        self.runners: dict[str, Runner] = {}
        self.open_sessions: set[OpenSession] = set()
        self.listeners: Callable[[], tuple[ListenerStatus, ...]] = tuple  # of the network; set once it listens
        self.quotas = Quotas()
        self.node = NodeState(facts, ports.clock.wall())
        self._usages = Usages(ports.meter)
        self._watch = WorkerWatch(self.runners, self._usages, ports.clock)
        self._deps = RunnerDeps(
            ports.launcher, ports.linker, ports.clock, self.emit, self._usages, facts.boot, rng or Random()
        )
        self._numbers = count(1)
        self._problems: tuple[tuple[str, str], ...] = ()
        self._elsewhere: Mapping[str, str] = {}  # pools of other nodes
        self._applying = asyncio.Lock()
        self._closing: dict[str, tuple[Runner, asyncio.Task[None]]] = {}  # removed, their last calls still run
        self._started = ports.clock.monotonic()
        self._last_sweep = self._started
        self._clock_missing = False
        self._lag = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    # Calls

    def submit(self, request: Request, reply: Reply) -> CallHandle:
        """Send a call to its pool. The answer comes through `reply`, perhaps before this returns."""
        return self.submit_alike(((request, reply),))[0]

    def submit_alike(self, calls: Sequence[tuple[Request, Reply]]) -> list[CallHandle]:
        """As `submit` for each, in this order. The requests, one or more, differ only in their arguments."""
        pool = calls[0][0].pool
        runner = self.runners.get(pool) if self.node.serving else None
        asked, handles = [], []
        for (request, reply), number in zip(calls, self._numbers, strict=False):
            if caller := request.caller:
                if limited := self.quotas.admit(caller, self.ports.clock.monotonic()):
                    self._refuse(request, reply, limited)
                    handles.append(CallHandle(None, number))
                    continue
                reply = CountedReply(reply, self.quotas, caller, self.ports.clock)
            asked.append((number, request, reply))
            handles.append(CallHandle(runner, number))
        if runner and asked:
            runner.submit(asked)
        else:
            for _, request, reply in asked:
                self._refuse(request, reply, self.node.refusal() or self._no_pool(pool))
        return handles

    def _refuse(self, request: Request, reply: Reply, error: errors.BrokerError) -> None:
        """Refuse a call before it reaches its pool, and count it there."""
        reply.failed(error, Timing())
        if runner := self.runners.get(request.pool):
            runner.pool.admission.refused_count += 1
            command = request.command if request.command in runner.commands else "unknown"
            self._usages.executed(request.pool, command, error.code, 0.0, 0.0)

    @property
    def largest_payload(self) -> int:
        """The largest `max_payload` of the pools, in bytes."""
        return max((runner.pool.spec.max_payload for runner in self.runners.values()), default=0)

    def commands(self, pool: str) -> list[CommandInfo]:
        return list(self._runner(pool).commands.values())

    # Operators and clocks

    def recycle(self, pool: str, worker: str, actor: str, reason: str) -> int:
        """Replace a pool's workers, or one, successor first. Returns how many will leave."""
        runner = self._runner(pool)
        runner.require_worker(worker)
        self.acted(pool, "recycle", actor, reason, worker)  # before its consequences
        return runner.recycle(worker, f"ordered by {actor or 'an operator'}: {reason or 'no reason given'}")

    def kill(self, worker: str, actor: str, reason: str) -> None:
        """Kill a worker's process; its calls fail, or run again where that is allowed. Raises WorkerUnknown."""
        for runner in self.runners.values():
            if worker in runner.workers:
                self.acted(runner.name, "kill", actor, reason, worker)  # before its consequences
                runner.kill(worker, f"ordered by {actor or 'an operator'}: {reason or 'no reason given'}")
                return
        raise errors.WorkerUnknown(f"Node {self.facts.name} has no worker {worker!r}.", details={"worker": worker})

    def drain(self, actor: str, reason: str) -> None:
        """Refuse new calls to every pool until `resume`. Accepted calls are finished, workers stay warm."""
        self.node.drain(actor, reason, self.ports.clock.wall())
        self.acted("", f"drain node {self.facts.name}", actor, reason)

    def resume(self, actor: str, reason: str) -> None:
        """Accept calls again, after a drain."""
        self.node.resume()
        self.acted("", f"resume node {self.facts.name}", actor, reason)

    def acted(self, pool: str, action: str, actor: str, reason: str, worker: str = "") -> None:
        """Publish what an operator did to a pool, a worker or the node, and why."""
        message = f"{actor or 'an operator'}: {action}: {reason or 'no reason given'}"
        data = {"actor": actor, "action": action, "reason": reason}
        self.emit(Event(Kind.OPERATOR_ACTED, pool, worker, action.partition(" ")[0], message, data=data))

    def plan(self, pool: str, worker: str = "") -> RecyclePlan:
        """Return what a recycle ordered now would do. Changes nothing."""
        runner = self._runner(pool)
        runner.require_worker(worker)
        startup = runner.pool.worker_set.startup_times.expected
        return forecast(
            runner.workers.values(), runner.pool.spec, self.ports.clock.monotonic(), worker, load_seconds=startup
        )

    async def dump(self, worker: str, actor: str, reason: str) -> WorkerDump:
        """Read the stack of each thread of a live worker, and publish the order. Raises WorkerUnknown or
        StacksUnavailable."""
        for runner in self.runners.values():
            handle = runner.handles.get(worker)
            if handle and handle.process:
                pool = runner.name
                self.acted(pool, "dump", actor, reason, worker)
                process, slots = handle.process, runner.workers[worker].places  # it may end meanwhile
                threads = await process.stacks()
                running = handle.running(self.ports.clock.monotonic(), slots)
                return WorkerDump(worker, pool, process.pid, self.ports.clock.wall(), threads, running)
        raise errors.WorkerUnknown(f"Node {self.facts.name} has no worker {worker!r}.", details={"worker": worker})

    def sweep(self, source: str, interval: float) -> SweepResult:
        """Check the age, count and memory of every worker now. Health does not wait for a sweep (`watch`)."""
        now = self.ports.clock.monotonic()
        if source != "own":
            if self._clock_missing:
                self.emit(Event(Kind.CLOCK_FOUND, reason=source, message=f"sweeps come from {source} again"))
            self._last_sweep, self._clock_missing = now, False
        for runner in self.runners.values():
            runner.sweep(interval)
        task = asyncio.get_running_loop().create_task(self._watch.sample(), name="sample memory")
        self._tasks = [kept for kept in self._tasks if not kept.done()] + [task]
        workers = sum(len(runner.handles) for runner in self.runners.values())
        return SweepResult(len(self.runners), workers, sum(runner.leaving_count() for runner in self.runners.values()))

    async def apply(self) -> int:
        """Read the definitions and apply them. Returns how many pools are defined."""
        async with self._applying:  # one at a time: an older reading must not undo a newer one
            loaded = await asyncio.to_thread(self.ports.definitions.load)
            if not self.node.stopping:
                self._apply(loaded)
            return len(loaded.definitions)

    async def _refresh(self) -> None:
        """Apply the definitions. If they cannot be read, the pools stay as they are, and one event has the reason."""
        try:
            await self.apply()
        except Exception as error:
            self._note((("", f"{NOT_READ}: {' '.join(str(error).split())}"),))

    def _apply(self, loaded: Loaded) -> None:
        wanted = {definition.spec.name: definition for definition in loaded.definitions if definition.spec.enabled}
        problems = list(loaded.problems)
        self._elsewhere = loaded.elsewhere
        invalid = {name for name, _ in loaded.problems}
        for name, definition in wanted.items():
            runner = self.runners.get(name)
            if runner is None and name not in self._closing:
                self._open(definition)
            elif runner and definition.unfit and not runner.definition.unfit:
                problems.append((name, definition.unfit))  # the pool stays as it is, as with any invalid definition
            elif runner and runner.definition != definition:
                runner.apply(definition)
                runner.count()
                self._usage(runner).renew(self.ports.clock.monotonic())
                self.emit(_applied(definition, runner.pool.worker_set.generation))
        for name in [name for name in self.runners if name not in wanted and name not in invalid]:
            self._remove(name)
        self._note(tuple(problems))

    def _note(self, problems: tuple[tuple[str, str], ...]) -> None:
        for name, problem in set(problems) - set(self._problems):
            self.emit(Event(Kind.POOL_INVALID, name, reason="definition", message=problem, level="error"))
        self._problems = problems

    def _open(self, definition: Definition) -> None:
        name = definition.spec.name
        self.runners[name] = runner = Runner(definition, self._deps)
        self._usage(runner)  # its window begins here: calls before the first reading count too
        self.emit(_applied(definition, 1))
        runner.open()

    def _remove(self, name: str) -> None:
        runner = self.runners.pop(name)
        runner.count()
        place = self._elsewhere.get(name)
        message = f"the pool lives on other nodes: {place}" if place else "the pool is disabled or deleted"
        reason = "placement" if place else "definition"
        self.emit(Event(Kind.POOL_REMOVED, name, reason=reason, message=message))

        async def close() -> None:
            await runner.close()
            del self._closing[name]

        self._closing[name] = runner, asyncio.get_running_loop().create_task(close(), name=f"close {name}")

    # Life

    async def start(self) -> None:
        self.ports.recorder.start()
        self.emit(Event(Kind.NODE_STARTED, message=f"broker {self.facts.name} started, pid {self.facts.pid}"))
        await self._refresh()
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._housekeeping(), name="housekeeping"))
        self._tasks.append(loop.create_task(self._watch.run(), name="watch workers"))

    async def _housekeeping(self) -> None:
        """Every second: apply definitions, record a snapshot, and check the lifecycle's clock."""
        loop = asyncio.get_running_loop()
        while True:
            expected = loop.time() + APPLY_EVERY
            await asyncio.sleep(APPLY_EVERY)
            self._lag = LAG_KEPT * self._lag + (1 - LAG_KEPT) * max(0.0, loop.time() - expected)
            try:
                await self._refresh()
                self._observe_usage()
            except Exception as error:  # one failure must not end the task: nothing would be applied any more
                loop.call_exception_handler({"message": "housekeeping failed; it continues", "exception": error})

    def _observe_usage(self) -> None:
        self._watch_clock()
        status = self.snapshot()
        self._usages.observe(self.ports.clock.monotonic(), status.pools, status.workers)
        self.ports.recorder.observe(status)

    def _watch_clock(self) -> None:
        silent = self.ports.clock.monotonic() - self._last_sweep
        patience = MISSED_SWEEPS * self.facts.sweep_interval
        if silent < patience:
            return
        if not self._clock_missing:
            self._clock_missing = True
            message = f"no sweep for {silent:.0f} s; the broker sweeps by itself. Is Celery beat running?"
            self.emit(Event(Kind.CLOCK_MISSING, reason="beat", message=message, level="warning"))
        self._last_sweep = self.ports.clock.monotonic() - patience + self.facts.sweep_interval
        self.sweep("own", self.facts.sweep_interval)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, let accepted ones finish for `grace` seconds, then kill what is left."""
        if self.node.stopping:
            return
        self.node.stop()
        message = f"broker {self.facts.name} stops; calls have {grace:g} s to finish"
        self.emit(Event(Kind.NODE_STOPPING, reason="signal", message=message))
        closing = [asyncio.ensure_future(runner.close()) for runner in self.runners.values()]
        closing += [task for _, task in self._closing.values()]
        if closing:
            _, late = await asyncio.wait(closing, timeout=grace)
            if late:
                self.kill_all()
                await asyncio.wait(late, timeout=5.0)
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.ports.launcher.close()
        self.ports.recorder.observe(self.snapshot())
        await asyncio.to_thread(self.ports.recorder.stop)

    def kill_all(self) -> None:
        for handle in tuple(self.handles()):
            handle.kill()
        for _, template in tuple(self.templates()):
            template.kill()

    # Looking

    def handles(self) -> Iterator[WorkerHandle]:
        """Iterate over all workers, those of removed pools included: their last calls still run."""
        for runner in (*self.runners.values(), *(runner for runner, _ in self._closing.values())):
            yield from runner.handles.values()

    def templates(self) -> Iterator[tuple[str, Template]]:
        """Iterate over all templates with a process: id and process."""
        for runner in (*self.runners.values(), *(runner for runner, _ in self._closing.values())):
            yield from runner.templates.living()

    @property
    def sessions(self) -> int:
        """How many clients have a session open."""
        return len(self.open_sessions)

    def emit(self, event: Event) -> None:
        self.ports.recorder.record(self.ports.clock.wall(), event)

    def count(self) -> None:
        """Pass every answered call on to the meter; a snapshot does so, too."""
        for runner in (*self.runners.values(), *(runner for runner, _ in self._closing.values())):
            runner.count()

    def snapshot(self, pool: str = "") -> BrokerStatus:
        self.count()
        now = self.ports.clock.monotonic()
        # A removed pool is there until its last call has ended: its workers use the machine until then.
        leaving = {name: runner for name, (runner, _) in self._closing.items()}
        if pool and pool not in leaving:
            self._runner(pool)
        shown = {name: runner for name, runner in sorted((leaving | self.runners).items()) if pool in ("", name)}
        workers = [(runner, worker) for runner in shown.values() for worker in runner.workers.values()]
        pools = [pool_status(one, now, self._usage(one), removed=name in leaving) for name, one in shown.items()]
        return BrokerStatus(
            self._node_status(now),
            tuple(pools),
            tuple(worker_status(runner, worker, now, self._usage(runner)) for runner, worker in workers),
            quotas=self.quotas.status(),
        )

    def _usage(self, runner: Runner) -> Usage:
        return self._usages.of(runner.name, self.ports.clock.monotonic())

    def _node_status(self, now: float) -> NodeStatus:
        clock = NO_SWEEP_YET if self._last_sweep == self._started else BEAT
        return node_status(
            self.node,
            uptime=round(now - self._started, 3),
            clock=CLOCK_MISSING if self._clock_missing else clock,
            loop_lag=round(self._lag, 4),
            sessions=self.sessions,
            listeners=self.listeners(),
            problems=tuple(f"{name}: {problem}" if name else problem for name, problem in self._problems),
        )

    def _runner(self, pool: str) -> Runner:
        runner = self.runners.get(pool)
        if runner is None:
            raise self._no_pool(pool)
        return runner

    def pool_names(self) -> list[str]:
        return sorted(self.runners)

    def _no_pool(self, name: str) -> errors.PoolUnknown:
        if place := self._elsewhere.get(name):
            message = f"Pool {name} lives on other nodes ({place}), not on {self.facts.name}."
            return errors.PoolUnknown(message, details={"pool": name, "nodes": place})
        known, name = self.pool_names(), bounded(name)
        hint = nearest(name, known) or f" Known are: {', '.join(known) or 'none'}."
        if any(problem.startswith(NOT_READ) for _, problem in self._problems):
            hint += f" It may be new: {NOT_READ} now. See: snakepit status"  # the reason names hosts of the database
        return errors.PoolUnknown(f"No pool {name!r} on node {self.facts.name}.{hint}", details={"pool": name})


def _applied(definition: Definition, generation: int) -> Event:
    spec = definition.spec
    size = f"{spec.size} worker{'s' * (spec.size != 1)}"
    message = f"{size}, {spec.profile} profile, adapter {spec.adapter}, generation {generation}"
    return Event(Kind.POOL_APPLIED, spec.name, reason="definition", message=message)

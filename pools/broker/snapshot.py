"""Reads what a node, a pool and a worker report about themselves, as the values of `broker.status`."""

from __future__ import annotations

from dataclasses import dataclass

from snakepit.pools.broker.node import NodeState
from snakepit.pools.broker.node_status import ListenerStatus
from snakepit.pools.broker.pool.pool import Pool
from snakepit.pools.broker.pool.recycle_policy import due_at
from snakepit.pools.broker.pool.worker import State, Worker
from snakepit.pools.broker.runner.runner import Runner
from snakepit.pools.broker.runner.worker_handle import WorkerHandle
from snakepit.pools.broker.spec import Profile
from snakepit.pools.broker.stats.gil_report import describe
from snakepit.pools.broker.stats.memory_growth import MEASURED, TOO_LITTLE, CommandGrowth, MemoryGrowth, WorkerGrowth
from snakepit.pools.broker.stats.usage import Usage
from snakepit.pools.broker.status import (
    CommandGrowthStatus,
    GrowthStatus,
    NodeStatus,
    PoolStatus,
    TemplateStatus,
    WorkerStatus,
)

OUTPUT_LINES = 50
MAX_WARNINGS = 8
RACES_NAMED = 5  # in the sentence of a warning


def node_status(
    node: NodeState, *, uptime: float, clock: str, loop_lag: float, sessions: int, problems: tuple[str, ...],
    listeners: tuple[ListenerStatus, ...],
) -> NodeStatus:  # fmt: skip
    order = None if node.stopping else node.drained
    return NodeStatus(
        name=node.facts.name,
        version=node.facts.version,
        pid=node.facts.pid,
        address=node.facts.address,
        started_at=node.started_at,
        uptime=uptime,
        draining=node.stopping or node.drained is not None,
        clock=clock,
        loop_lag=loop_lag,
        python=node.facts.python,
        sessions=sessions,
        problems=problems,
        drain_since=order.since if order else 0.0,
        drain_actor=order.actor if order else "",
        drain_reason=order.reason if order else "",
        labels=node.facts.labels,
        advertised=node.facts.advertised,
        listeners=listeners,
    )


def pool_status(runner: Runner, now: float, usage: Usage, *, removed: bool = False) -> PoolStatus:
    """`removed`: its definition is gone, and its last calls still run."""
    pool, worker_set = runner.pool, runner.pool.worker_set
    ready = worker_set.among(State.READY)
    state, reason = pool_state(runner, now)
    parallelism = pool_parallelism(runner)
    return PoolStatus(
        name=pool.spec.name,
        profile=str(pool.spec.profile),
        adapter=pool.spec.adapter,
        state=state,
        reason="the pool is removed; its last calls still run" if removed else reason,
        size=pool.spec.size,
        ready=len(ready),
        busy=sum(worker.load > 0 for worker in ready),
        slots=sum(worker.slots for worker in ready),
        free=sum(worker.slots - worker.load for worker in ready if not worker.silent),
        lost=sum(worker.lost for worker in worker_set.workers.values()),
        waiting=pool.waiting,
        oldest_wait=round(pool.queue.oldest_wait(now), 3),
        queue_limit=pool.spec.queue_limit,
        generation=worker_set.generation,
        finished=pool.finished_count,
        failed=pool.failed_count,
        refused=pool.admission.refused_count,
        retried=pool.retried_count,
        recycled=worker_set.recycled,
        died=worker_set.died,
        memory_mb=pool_memory(runner),
        warnings=pool_warnings(runner),
        interpreter=runner.definition.interpreter,
        load_seconds=round(worker_set.startup_times.expected, 3),
        growth=pool_growth(worker_set.growth),
        gil=parallelism.gil,
        gil_culprit=parallelism.culprit,
        parallelism=parallelism.factor,
        parallel=parallelism.sentence,
        suspended=worker_set.gate.suspects.names(now),
        races=tuple(runner.races),
        prefetched=pool.dispatcher.prefetched,
        run_times=pool.dispatcher.run_times.status(),
        batches=pool.dispatcher.batches.status(),
        buffer_bytes=buffer_bytes(pool),
        usage=usage.status(),
        template=template_status(runner),
    )


def buffer_bytes(pool: Pool) -> int:
    """Bytes of arguments in shared memory: the broker holds their descriptors until the calls have ended."""
    assigned = (worker.assigned.values() for worker in pool.worker_set.workers.values())
    return pool.queue.buffer_bytes + sum(call.buffer_bytes for calls in assigned for call in calls)


def pool_memory(runner: Runner) -> float:
    worker_set = runner.pool.worker_set
    found = [worker.memory_mb for worker in worker_set.workers.values()] + [worker_set.template.memory_mb]
    return round(sum(memory for memory in found if memory >= 0), 1)


def template_status(runner: Runner) -> TemplateStatus:
    worker_set = runner.pool.worker_set
    template = worker_set.template
    process = runner.templates.get(template.id) if template.is_current(template.id) else None
    return TemplateStatus(
        state=str(template.state),
        reason=template.reason,
        why=template.why,
        id=template.id,
        pid=process.pid if process else 0,
        generation=worker_set.generation if template.id else 0,
        memory_mb=template.memory_mb,
        load_seconds=round(template.load_seconds, 3),
        deaths=template.deaths,
        output=tuple(process.output()[-OUTPUT_LINES:]) if process else (),
    )


@dataclass(frozen=True, slots=True)
class PoolParallelism:
    """How many slots of a worker run at the same time; `sentence` has the reason."""

    gil: str = ""
    culprit: str = ""
    factor: float = 0.0
    sentence: str = ""


def pool_parallelism(runner: Runner) -> PoolParallelism:
    """Of the ready worker with the least parallelism."""
    spec = runner.pool.spec
    ready = {worker.id for worker in runner.pool.worker_set.among(State.READY)}
    threaded = [handle for handle in runner.handles.values() if handle.id in ready and handle.greeting]
    if spec.profile != Profile.THREAD or not threaded:
        return PoolParallelism()
    worst = min(threaded, key=lambda handle: (not handle.gil_enabled, handle.parallelism))
    greeting = worst.greeting
    assert greeting is not None
    sentence = describe(
        runner.workers[worst.id].slots,
        worst.parallelism,
        cores=greeting.cores,
        free_threaded=greeting.free_threaded,
        gil_enabled=worst.gil_enabled,
        culprit=worst.gil_culprit,
        python=greeting.python,
    )
    return PoolParallelism(_gil(worst), worst.gil_culprit, round(worst.parallelism, 2), sentence)


def _gil(worker: WorkerHandle) -> str:
    return "on" if worker.gil_enabled else "off"


def pool_growth(growth: MemoryGrowth) -> GrowthStatus:
    commands = tuple(_command_growth(found) for found in growth.commands())
    return _growth(growth, growth.all_calls(), growth, commands)


def worker_growth(worker: WorkerGrowth, pool: MemoryGrowth) -> GrowthStatus:
    return _growth(worker, worker.totals, pool, ())


def _growth(
    found: MemoryGrowth | WorkerGrowth,
    calls: dict[str, int],
    pool: MemoryGrowth,
    commands: tuple[CommandGrowthStatus, ...],
) -> GrowthStatus:
    mb = found.mb
    return GrowthStatus(
        mb_per_1000_calls=None if mb is None else round(mb, 3),
        calls=found.calls,
        samples=found.samples,
        mostly=pool.mostly(calls) if mb is not None and mb > 0 else "",
        verdict=TOO_LITTLE if mb is None else MEASURED,
        commands=commands,
    )


def _command_growth(found: CommandGrowth) -> CommandGrowthStatus:
    return CommandGrowthStatus(
        command=found.command,
        mb_per_1000_calls=None if found.mb is None else round(found.mb, 3),
        error=None if found.error is None else round(found.error, 3),
        calls=found.calls,
        samples=found.samples,
        verdict=found.verdict,
    )


def pool_state(runner: Runner, now: float) -> tuple[str, str]:
    """The state of a pool, and the reason where it is not simply ready."""
    spec, worker_set = runner.pool.spec, runner.pool.worker_set
    ready = len(worker_set.among(State.READY))
    if worker_set.closing:
        return "stopping", "it is shutting down"
    if worker_set.is_hopeless():
        return "failed", worker_set.gate.failed
    if spec.paused:
        return "paused", "paused by its operator"
    trouble = worker_set.gate.stuck
    refused = worker_set.gate.suspects.describe(now)
    if ready == 0:
        return "starting", trouble or refused or ("its template loads" if worker_set.template.is_loading else "")
    if ready < spec.size - spec.max_unavailable:
        return "degraded", f"{ready} of {spec.size} workers are ready" + "".join(
            f"; {why}" for why in (trouble, refused) if why
        )
    if trouble:  # all slots serve, but no worker can be replaced
        old = sum(worker.generation != worker_set.generation for worker in worker_set.among(State.READY))
        workers = "1 worker of an older definition serves" if old == 1 else f"{old} workers of older definitions serve"
        serving = f"; {workers}" if old else ""
        return "degraded", f"workers cannot be replaced: {trouble}{serving}"
    if refused:
        return "degraded", refused
    return "ready", ""


def pool_warnings(runner: Runner) -> tuple[str, ...]:
    """What works, but differently from what the pool's definition suggests."""
    warnings = []
    if races := runner.races:
        names = ", ".join(f"`{name}`" for name in races[:RACES_NAMED])
        more = f" and {len(races) - RACES_NAMED} more" if races[RACES_NAMED:] else ""
        warnings.append(f"unlocked writes from two threads to {names}{more}; the events thread.race have both stacks")
    if runner.pool.worker_set.template.is_unexpectedly_refused(runner.pool.spec):
        warnings.append(f"workers are spawned one by one: {runner.pool.worker_set.template.why}")
    for handle in runner.handles.values():
        greeting = handle.greeting
        if greeting and greeting.free_threaded and handle.gil_enabled:
            because = f" because of {handle.gil_culprit}" if handle.gil_culprit else ""
            warnings.append(f"{handle.id}: the interpreter is free-threaded, but the GIL is on{because}")
    return tuple(warnings[:MAX_WARNINGS])


def worker_status(runner: Runner, worker: Worker, now: float, usage: Usage) -> WorkerStatus:
    handle: WorkerHandle | None = runner.handles.get(worker.id)
    greeting = handle.greeting if handle else None
    process = handle.process if handle else None
    seen = usage.workers.get(worker.id)
    due = due_at(worker, runner.pool.spec)
    return WorkerStatus(
        id=worker.id,
        pool=runner.pool.spec.name,
        pid=process.pid if process else 0,
        state=str(worker.state),
        reason=f"{worker.reason}: {worker.detail}" if worker.reason and worker.detail else worker.reason,
        load=worker.load,
        capacity=worker.slots,
        lost=worker.lost,
        served=worker.served,
        memory_mb=round(worker.memory_mb, 1),
        gil=_gil(handle) if handle and greeting else "",
        gil_culprit=handle.gil_culprit if handle else "",
        generation=worker.generation,
        started_at=handle.started_wall if handle else 0.0,
        load_seconds=round(greeting.load_seconds, 3) if greeting else 0.0,
        python=greeting.python if greeting else "",
        parallelism=round(handle.parallelism, 2) if handle else 0.0,
        calls=handle.running(now, worker.places) if handle else (),
        output=tuple(process.output()[-OUTPUT_LINES:]) if process else (),
        due_in=None if due is None else round(max(0.0, due - now), 3),
        expected=worker.expires_soon,
        growth=worker_growth(worker.growth, runner.pool.worker_set.growth),
        silent_for=handle.silent_for(now) if handle else 0.0,
        prefetched=worker.prefetched,
        mb_per_hour=None if seen is None or (slope := seen.mb_per_hour) is None else round(slope, 3),
        template=worker.template,
        sandbox=greeting.sandbox if greeting else "",
    )

"""Everything that is known of a pool or a worker, in one value. Unknown values are None, never zero.

>>> percentile([0, 8, 2, 0, 0, 0, 0], 0.5), percentile([0, 0, 0, 0, 0, 0, 5], 0.5)
(0.001, None)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snakepit.pools.broker.command_status import BatchStatus, CommandRunTimes
from snakepit.pools.broker.pool.times import BOUNDS
from snakepit.pools.broker.spec import PoolSpec
from snakepit.pools.broker.status import (
    CommandInfo,
    GrowthStatus,
    PlannedWorker,
    PoolStatus,
    RecyclePlan,
    RunningCall,
    TemplateStatus,
    UsageStatus,
    WorkerStatus,
)
from snakepit.pools.diagnostics.advice import said_span

if TYPE_CHECKING:  # its module imports models, and a broker's socket can be inspected without its project
    from snakepit.pools.diagnostics.history import History

HIGH_USE = 0.8  # share of the slot time; above it waits grow faster than the load


@dataclass(frozen=True, slots=True)
class InspectedCapacity:
    profile: str
    size: int
    ready: int
    slots: int
    free: int
    lost: int
    interpreter: str | None


@dataclass(frozen=True, slots=True)
class InspectedUse:
    """Of the usage window; see UsageStatus."""

    seconds: float
    busy: float | None
    peak: int
    answered: int
    calls_per_second: float | None
    cpu_per_call: float | None
    cpu_calls: int


@dataclass(frozen=True, slots=True)
class InspectedQueue:
    """What waits now, and what was turned away in the usage window."""

    waiting: int
    oldest_wait: float
    limit: int
    wait_p50: float | None
    wait_p95: float | None
    refused: int
    timed_out: int
    overran: int
    lost: int
    not_admitted: int


@dataclass(frozen=True, slots=True)
class InspectedMemory:
    """MiB. Mean, smallest and largest are of the measured workers."""

    mb: float | None
    buffer_mb: float  # of arguments in shared memory, of calls that wait or run
    mean_mb: float | None
    smallest_mb: float | None
    largest_mb: float | None
    growth: GrowthStatus


@dataclass(frozen=True, slots=True)
class InspectedParallelism:
    factor: float | None
    gil: str | None
    culprit: str | None
    sentence: str | None


@dataclass(frozen=True, slots=True)
class InspectedCommand:
    """A command, and its run times since the broker started.

    `*_below`: the percentile lies below it; None: above 10 s.
    """

    command: str
    count: int
    info: CommandInfo | None  # None: no ready worker has it now
    mean: float | None
    recent: float | None
    p50_below: float | None
    p95_below: float | None


@dataclass(frozen=True, slots=True)
class InspectedWorker:
    id: str
    pool: str
    pid: int | None
    state: str
    reason: str
    load: int
    capacity: int
    lost: int
    served: int
    memory_mb: float | None
    mb_per_hour: float | None
    mb_per_1000_calls: float | None
    memory_limit_mb: float | None  # memory_soft_mb, else memory_hard_mb
    seconds_to_limit: float | None  # at the present slope
    load_seconds: float | None
    template: str | None
    sandbox: str | None  # what the kernel keeps from it; None: nothing
    gil: str | None
    gil_culprit: str | None
    parallelism: float | None
    python: str | None
    seconds_until_ttl: float | None
    calls_until_max: int | None
    forecast: str | None  # what a recycle would do to it
    calls: tuple[RunningCall, ...]
    output: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InspectedPool:
    pool: str
    state: str
    reason: str
    warnings: tuple[str, ...]
    capacity: InspectedCapacity
    use: InspectedUse
    queue: InspectedQueue
    memory: InspectedMemory
    load_seconds: float | None
    parallelism: InspectedParallelism
    template: TemplateStatus
    commands: tuple[InspectedCommand, ...]
    batches: tuple[BatchStatus, ...]
    last_day: History | None  # None: the database is not known
    recycled: int
    died: int
    at_once: int
    workers: tuple[InspectedWorker, ...]


def inspect_pool(
    pool: PoolStatus,
    workers: Sequence[WorkerStatus],
    plan: RecyclePlan,
    spec: PoolSpec | None,
    past: History | None,
    catalogue: Sequence[CommandInfo] = (),
) -> InspectedPool:
    """`plan` is what a recycle would do; `spec` and `past` None: there is no row, or no database."""
    planned = {one.id: one for one in plan.workers}
    return InspectedPool(
        pool=pool.name,
        state=pool.state,
        reason=pool.reason,
        warnings=(*pool.warnings, *_high_use(pool.usage)),
        capacity=InspectedCapacity(
            pool.profile, pool.size, pool.ready, pool.slots, pool.free, pool.lost, pool.interpreter or None
        ),
        use=_use(pool.usage),
        queue=_queue(pool),
        memory=inspect_memory(pool, workers),
        load_seconds=pool.load_seconds or None,
        parallelism=InspectedParallelism(
            pool.parallelism or None, pool.gil or None, pool.gil_culprit or None, pool.parallel or None
        ),
        template=pool.template,
        commands=inspect_commands(pool.run_times, catalogue),
        batches=pool.batches,
        last_day=past,
        recycled=pool.recycled,
        died=pool.died,
        at_once=plan.at_once,
        workers=tuple(inspect_worker(worker, planned.get(worker.id), spec) for worker in workers),
    )


def _use(usage: UsageStatus) -> InspectedUse:
    return InspectedUse(
        seconds=usage.seconds,
        busy=usage.busy,
        peak=usage.peak,
        answered=usage.answered,
        calls_per_second=usage.calls_per_second,
        cpu_per_call=usage.cpu_per_call,
        cpu_calls=usage.cpu_calls,
    )


def _queue(pool: PoolStatus) -> InspectedQueue:
    usage = pool.usage
    return InspectedQueue(
        waiting=pool.waiting,
        oldest_wait=pool.oldest_wait,
        limit=pool.queue_limit,
        wait_p50=usage.wait_p50,
        wait_p95=usage.wait_p95,
        refused=usage.refused,
        timed_out=usage.timed_out,
        overran=usage.overran,
        lost=usage.lost,
        not_admitted=usage.not_admitted,
    )


def _high_use(usage: UsageStatus) -> tuple[str, ...]:
    if usage.busy is None or usage.busy < HIGH_USE:
        return ()
    span = said_span(usage.seconds)
    return (f"{usage.busy:.0%} busy over {span}: from {HIGH_USE:.0%} on, calls soon wait",)


def inspect_memory(pool: PoolStatus, workers: Sequence[WorkerStatus]) -> InspectedMemory:
    known = [one.memory_mb for one in workers if one.memory_mb >= 0]
    return InspectedMemory(
        mb=pool.memory_mb or None,
        buffer_mb=round(pool.buffer_mb, 1),
        mean_mb=sum(known) / len(known) if known else None,
        smallest_mb=min(known, default=None),
        largest_mb=max(known, default=None),
        growth=pool.growth,
    )


def inspect_worker(worker: WorkerStatus, planned: PlannedWorker | None, spec: PoolSpec | None) -> InspectedWorker:
    memory, slope = worker.measured_mb, worker.mb_per_hour
    limits = (spec.memory_soft_mb, spec.memory_hard_mb) if spec else ()
    limit = next((one for one in limits if one is not None), None)
    to_limit = None
    if limit is not None and memory is not None and slope is not None and slope > 0:
        to_limit = max(0.0, limit - memory) / slope * 3600
    return InspectedWorker(
        id=worker.id,
        pool=worker.pool,
        pid=worker.pid or None,
        state=worker.state,
        reason=worker.reason,
        load=worker.load,
        capacity=worker.capacity,
        lost=worker.lost,
        served=worker.served,
        memory_mb=memory,
        mb_per_hour=slope,
        mb_per_1000_calls=worker.growth.mb_per_1000_calls,
        memory_limit_mb=limit,
        seconds_to_limit=to_limit,
        load_seconds=worker.load_seconds or None,
        template=worker.template or None,
        sandbox=worker.sandbox or None,
        gil=worker.gil or None,
        gil_culprit=worker.gil_culprit or None,
        parallelism=worker.parallelism or None,
        python=worker.python or None,
        seconds_until_ttl=planned.seconds_until_ttl if planned else None,
        calls_until_max=planned.calls_until_max if planned else None,
        forecast=planned.effect if planned else None,
        calls=worker.calls,
        output=worker.output,
    )


def inspect_commands(
    run_times: Sequence[CommandRunTimes], catalogue: Sequence[CommandInfo]
) -> tuple[InspectedCommand, ...]:
    """The commands that ran, then those that did not."""
    known = {info.name: info for info in catalogue}
    ran = [inspect_command(times, known.pop(times.command, None)) for times in run_times]
    never = (0,) * (len(BOUNDS) + 1)
    return (*ran, *(inspect_command(CommandRunTimes(name, 0, 0.0, 0.0, never), known[name]) for name in known))


def inspect_command(times: CommandRunTimes, info: CommandInfo | None) -> InspectedCommand:
    return InspectedCommand(
        command=times.command,
        count=times.count,
        info=info,
        mean=times.seconds / times.count if times.count else None,
        recent=times.smoothed if times.count else None,
        p50_below=percentile(times.buckets, 0.5),
        p95_below=percentile(times.buckets, 0.95),
    )


def percentile(buckets: Sequence[int], share: float) -> float | None:
    """The bound below which this share of the runs ended; None: above all bounds, or there were no runs."""
    left: float = share * sum(buckets)
    for bound, count in zip(BOUNDS, buckets, strict=False):
        left -= count
        if left <= 0 and any(buckets):
            return bound
    return None

"""Memory that grows with the calls: which command causes it, and when a worker reaches its soft limit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from snakepit.pools.broker.stats.memory_growth import MEASURED
from snakepit.pools.broker.status import PoolStatus, WorkerStatus
from snakepit.pools.diagnostics.rules import LEAK, SAMPLES, is_chance


@dataclass(frozen=True, slots=True)
class Leak:
    mb: float  # per 1,000 calls
    command: str  # that makes more than half of it; empty: none, or not known
    worker: str  # that reaches the soft limit first; empty: there is no limit, or no worker grows now
    seconds: float | None  # until then


def leak_of(pool: PoolStatus, workers: Iterable[WorkerStatus], limit: float | None) -> Leak | None:
    """`limit`: memory_soft_mb of the pool. None: not enough evidence, or too little growth to act on."""
    growth, mb = pool.growth, pool.growth.mb_per_1000_calls
    # The same evidence as the advice: a few samples also grow while a worker warms up.
    if growth.verdict != MEASURED or growth.samples < SAMPLES or mb is None or mb < LEAK or is_chance(growth):
        return None
    found = [(seconds, worker.id) for worker in workers if (seconds := seconds_to(limit, worker)) is not None]
    seconds, first = min(found, default=(None, ""))
    return Leak(mb, growth.mostly, first, seconds)


def seconds_to(limit: float | None, worker: WorkerStatus) -> float | None:
    """Seconds until a worker has `limit` MiB at its present growth; None: not known."""
    slope, memory = worker.mb_per_hour, worker.measured_mb
    if not limit or not slope or slope <= 0 or memory is None or worker.state != "ready":
        return None
    return max(0.0, (limit - memory) / slope * 3600)

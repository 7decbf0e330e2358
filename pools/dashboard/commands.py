"""The cost of a pool's commands: run times from the broker's buckets, with the memory growth of each command.

The buckets are a factor of ten wide, so a percentile is given as an upper bound.

>>> at_most([0, 0, 90, 10, 0, 0, 0], 0.5), at_most([0, 0, 90, 10, 0, 0, 0], 0.95)
(0.01, 0.1)
>>> at_most([0, 0, 0, 0, 0, 0, 3], 0.5)
inf
>>> at_most([0] * 7, 0.5) is None
True
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from snakepit.pools.broker.command_status import CommandRunTimes
from snakepit.pools.broker.pool.times import BOUNDS
from snakepit.pools.broker.status import CommandGrowthStatus, PoolStatus


@dataclass(frozen=True, slots=True)
class CommandCost:
    """Run time and memory of one command. `p50`, `p95`, `p99`: seconds at most."""

    times: CommandRunTimes
    growth: CommandGrowthStatus | None
    mean: float
    p50: float | None
    p95: float | None
    p99: float | None


def costs(pool: PoolStatus) -> list[CommandCost]:
    """Each command that ran since the broker started, the one with the most run time first."""
    growth = {one.command: one for one in pool.growth.commands}
    rows = [
        CommandCost(
            one,
            growth.get(one.command),
            one.seconds / one.count,
            *(at_most(one.buckets, share) for share in (0.5, 0.95, 0.99)),
        )
        for one in pool.run_times
        if one.count
    ]
    return sorted(rows, key=lambda row: -row.times.seconds)


def at_most(buckets: Sequence[int], share: float) -> float | None:
    """Seconds within which this share of the runs ended: the upper bound of its bucket, inf above the last."""
    left = share * sum(buckets)
    if left <= 0:
        return None
    for bound, runs in zip((*BOUNDS, inf), buckets, strict=True):
        left -= runs
        if left <= 0:
            return bound
    return inf

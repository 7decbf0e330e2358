"""What a pool's commands cost: run times from the broker's buckets, joined with the memory that each leaves behind.

The buckets are a factor of ten wide, so a percentile is told as what it is at most.

>>> at_most([0, 0, 90, 10, 0, 0, 0], 0.5), at_most([0, 0, 90, 10, 0, 0, 0], 0.95)
(0.01, 0.1)
>>> at_most([0, 0, 0, 0, 0, 0, 3], 0.5)
inf
>>> at_most([0] * 7, 0.5) is None
True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from snakepit.pools.broker.pool.dispatcher import BOUNDS

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def costs(pool: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each command that ran in this broker's life, the one with the most run time first."""
    growth = {one["command"]: one for one in (pool.get("growth") or {}).get("commands", ())}
    rows = [
        {
            "command": one["command"],
            "count": one["count"],
            "mean": one["seconds"] / one["count"],
            "smoothed": one["smoothed"],
            "seconds": one["seconds"],
            "buckets": one["buckets"],
            **{name: at_most(one["buckets"], share) for name, share in SHARES.items()},
            "growth": growth.get(one["command"]),
        }
        for one in pool.get("run_times", ())
        if one["count"]
    ]
    return sorted(rows, key=lambda row: -row["seconds"])


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

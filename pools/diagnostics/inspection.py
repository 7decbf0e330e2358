"""Everything that is known of a pool or a worker, in one value. What is not known is None, never zero.

>>> percentile([0, 8, 2, 0, 0, 0, 0], 0.5), percentile([0, 0, 0, 0, 0, 0, 5], 0.5)
(0.001, None)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from snakepit.pools.broker.pool.dispatcher import BOUNDS
from snakepit.pools.broker.spec import PoolSpec
from snakepit.pools.diagnostics.advice import said_span

if TYPE_CHECKING:  # it has models, and a broker's socket can be inspected without its project
    from snakepit.pools.diagnostics.history import History

HIGH_USE = 0.8  # share of the slot time; above it waits grow faster than the load


def inspect_pool(
    pool: Mapping[str, Any],
    workers: Sequence[Mapping[str, Any]],
    plan: Mapping[str, Any],
    spec: PoolSpec | None,
    past: History | None,
) -> dict[str, Any]:
    """`pool` and `workers` as the status shows them, `plan` what a recycle would do; `spec` and `past` None: no row
    or no database."""
    usage = pool.get("usage") or {}
    planned = {one["id"]: one for one in plan["workers"]}
    return {
        "pool": pool["name"],
        "state": pool["state"],
        "reason": pool["reason"],
        "warnings": [*pool.get("warnings", ()), *_high_use(usage)],
        "capacity": {name: pool[name] for name in ("profile", "size", "ready", "slots", "free", "lost")}
        | {"interpreter": pool.get("interpreter") or None},
        "use": {name: usage.get(name) for name in ("seconds", "busy", "peak", "answered", "calls_per_second")}
        | {"cpu_per_call": usage.get("cpu_per_call"), "cpu_calls": usage.get("cpu_calls")},
        "queue": {"waiting": pool["waiting"], "oldest_wait": pool["oldest_wait"], "limit": pool["queue_limit"]}
        | {name: usage.get(name) for name in ("wait_p50", "wait_p95", "refused", "timed_out", "overran", "lost")},
        "memory": {"mb": pool["memory_mb"] or None, **spread(workers), "growth": pool.get("growth")},
        "load_seconds": pool["load_seconds"] or None,
        "parallelism": {
            "factor": pool.get("parallelism") or None,
            "gil": pool.get("gil") or None,
            "culprit": pool.get("gil_culprit") or None,
            "sentence": pool.get("parallel") or None,
        },
        "template": pool.get("template"),
        "commands": [command(row) for row in pool.get("run_times") or ()],
        "last_day": None if past is None else asdict(past),
        "recycled": pool["recycled"],
        "died": pool["died"],
        "at_once": plan["at_once"],
        "workers": [inspect_worker(worker, planned.get(worker["id"]), spec, usage) for worker in workers],
    }


def _high_use(usage: Mapping[str, Any]) -> list[str]:
    busy = usage.get("busy")
    if busy is None or busy < HIGH_USE:
        return []
    return [f"{busy:.0%} busy over {said_span(usage['seconds'])}: from {HIGH_USE:.0%} on, calls soon wait"]


def spread(workers: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Memory of the workers that are measured, in MiB; None: none is.

    >>> spread([{"memory_mb": 50.0}, {"memory_mb": 70.0}, {"memory_mb": -1.0}])
    {'mean_mb': 60.0, 'smallest_mb': 50.0, 'largest_mb': 70.0}
    """
    known = [one["memory_mb"] for one in workers if one["memory_mb"] >= 0]
    if not known:
        return {"mean_mb": None, "smallest_mb": None, "largest_mb": None}
    return {"mean_mb": sum(known) / len(known), "smallest_mb": min(known), "largest_mb": max(known)}


def inspect_worker(
    worker: Mapping[str, Any], planned: Mapping[str, Any] | None, spec: PoolSpec | None, usage: Mapping[str, Any]
) -> dict[str, Any]:
    memory = worker["memory_mb"] if worker["memory_mb"] >= 0 else None
    growth = worker.get("growth") or {}
    limits = (spec.memory_soft_mb, spec.memory_hard_mb) if spec else (None, None)
    limit = next((one for one in limits if one is not None), None)
    slope, left, to_limit = worker.get("mb_per_hour"), None, None
    if limit is not None and memory is not None:
        left = max(0.0, limit - memory)
        to_limit = left / slope * 3600 if slope is not None and slope > 0 else None
    return {
        "id": worker["id"],
        "pool": worker["pool"],
        "pid": worker["pid"] or None,
        "state": worker["state"],
        "reason": worker["reason"],
        "load": worker["load"],
        "capacity": worker["capacity"],
        "lost": worker["lost"],
        "served": worker["served"],
        "memory_mb": memory,
        "mb_per_hour": slope,
        "mb_per_1000_calls": growth.get("mb_per_1000_calls"),
        "memory_limit_mb": limit,
        "seconds_to_limit": to_limit,
        "load_seconds": worker["load_seconds"] or None,
        "template": worker.get("template") or None,
        "gil": worker["gil"] or None,
        "gil_culprit": worker["gil_culprit"] or None,
        "parallelism": worker["parallelism"] or None,
        "python": worker["python"] or None,
        "seconds_until_ttl": planned and planned["seconds_until_ttl"],
        "calls_until_max": planned and planned["calls_until_max"],
        "forecast": planned["fate"] if planned else None,
        "calls": list(worker["calls"]),
        "output": list(worker["output"]),
    }


def command(row: Mapping[str, Any]) -> dict[str, Any]:
    """One command's run times since the broker began. `*_below`: the percentile lies under it; None: above 10 s."""
    count = row["count"]
    return {
        "command": row["command"],
        "count": count,
        "mean": row["seconds"] / count if count else None,
        "recent": row["smoothed"] if count else None,
        "p50_below": percentile(row["buckets"], 0.5),
        "p95_below": percentile(row["buckets"], 0.95),
    }


def percentile(buckets: Sequence[int], share: float) -> float | None:
    """The bound under which this share of the runs ended; None: above them all, or there were no runs."""
    left: float = share * sum(buckets)
    for bound, count in zip(BOUNDS, buckets, strict=False):
        left -= count
        if left <= 0 and any(buckets):
            return bound
    return None

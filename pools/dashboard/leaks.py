"""Memory that grows with the calls: in which pools, and when a worker of theirs reaches its soft line.

>>> pool = {"name": "p", "growth": {"verdict": "measured", "mb_per_1000_calls": 4.9, "mostly": "embed"}}
>>> worker = {"id": "p-1", "pool": "p", "state": "ready", "memory_mb": 80.0, "mb_per_hour": 60.0}
>>> leak = leak_of(pool, [worker], 100.0)
>>> leak.command, leak.worker, leak.seconds
('embed', 'p-1', 1200.0)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from snakepit.pools.diagnostics.rules import LEAK, is_chance


@dataclass(frozen=True, slots=True)
class Leak:
    mb: float  # per 1,000 calls
    command: str  # that makes more than half of it; empty: none, or not known
    worker: str  # that will be the first at the soft line; empty: there is no line, or none grows now
    seconds: float | None  # until then


def leak_of(pool: Mapping[str, Any], workers: Iterable[Mapping[str, Any]], line: float | None) -> Leak | None:
    """`line`: memory_soft_mb of the pool. None: not enough evidence, or no growth that anybody would act on."""
    growth = pool.get("growth") or {}
    mb = growth.get("mb_per_1000_calls")
    if growth.get("verdict") != "measured" or mb is None or mb < LEAK or is_chance(growth):
        return None
    found = [(seconds, worker["id"]) for worker in workers if (seconds := until(worker, line)) is not None]
    seconds, first = min(found, default=(None, ""))
    return Leak(mb, growth.get("mostly", ""), first, seconds)


def until(worker: Mapping[str, Any], line: float | None) -> float | None:
    """Seconds until it is at `line` MiB if it goes on growing as since its first call. None: nobody can say."""
    slope, memory = worker.get("mb_per_hour"), worker.get("memory_mb", -1.0)
    if not line or not slope or slope <= 0 or memory < 0 or worker["state"] != "ready":
        return None
    return max(0.0, (line - memory) / slope * 3600)

"""What a new definition of a pool would do: which workers leave, how many at once, how long it takes. Looks only.

>>> from snakepit.pools.broker.spec import PoolSpec
>>> old = PoolSpec(name="digits", adapter="digits", size=2)
>>> preview(old, PoolSpec(name="digits", adapter="digits", size=4), []).summary
'2 more workers start.'
>>> preview(old, PoolSpec(name="digits", adapter="digits", size=2, queue_limit=5), []).summary
'No worker is replaced: the change is in force for what comes next.'
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from snakepit.pools.broker.spec import FIELDS, WORKER_FIELDS, PoolSpec

LIFECYCLE = ("ttl", "max_requests", "jitter", "min_lifetime", "memory_soft_mb", "memory_hard_mb", "memory_samples")


@dataclass(frozen=True, slots=True)
class FieldChange:
    field: str
    before: Any
    after: Any
    effect: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """`seconds` is a guess from the time that the workers there are took to load; None: nobody knows."""

    changes: tuple[FieldChange, ...]
    replaced: int  # workers that leave, each after its successor where max_surge allows
    started: int  # more than before
    ended: int  # without a successor
    busy: int  # of those that leave, how many hold a call now
    at_once: int
    seconds: float | None
    drain_timeout: float
    summary: str

    @property
    def touches_workers(self) -> bool:
        return bool(self.replaced or self.started or self.ended)


def preview(old: PoolSpec, new: PoolSpec, workers: Sequence[dict[str, Any]]) -> Rollout:
    """`workers` are the pool's workers as the broker's status shows them."""
    changes = tuple(
        FieldChange(name, getattr(old, name), getattr(new, name), _effect(name))
        for name in FIELDS
        if getattr(old, name) != getattr(new, name)
    )
    present = [one for one in workers if one["state"] in ("starting", "ready", "draining")]
    before, after = (old.size if old.enabled else 0), (new.size if new.enabled else 0)
    replaced = min(before, after) if old.enabled and new.enabled and new.needs_new_workers(old) else 0
    started, ended = max(0, after - before), max(0, before - after)
    at_once = min(new.max_surge + new.max_unavailable, max(1, replaced))
    loads = [one["load_seconds"] for one in present if one.get("load_seconds")]
    seconds = _seconds(loads, replaced, at_once, started, new)
    # The idle leave first where some only become too many; where all are replaced, the busy are among them.
    idle = sum(one["load"] == 0 for one in present)
    busy = len(present) - idle if replaced else max(0, ended - idle)
    counts = replaced, started, ended
    return Rollout(changes, *counts, busy, at_once, seconds, new.drain_timeout, _summary(counts, busy, at_once))


def _seconds(loads: list[float], replaced: int, at_once: int, started: int, spec: PoolSpec) -> float | None:
    if not (replaced or started):
        return 0.0
    if not loads:
        return None
    rounds = math.ceil(replaced / at_once) if replaced else 0
    batches = math.ceil(started / spec.startup_batch)
    load = sum(loads) / len(loads)
    return rounds * load + (batches * load + max(0, batches - 1) * spec.startup_delay if started else 0.0)


def _summary(counts: tuple[int, int, int], busy: int, at_once: int) -> str:
    replaced, started, ended = counts
    parts = []
    if replaced:
        parts.append(f"{_workers(replaced)} replaced, {at_once} at once, each by a successor that is ready first")
    if started:
        parts.append(f"{started} more {'worker starts' if started == 1 else 'workers start'}")
    if ended:
        parts.append(f"{ended} {'worker leaves' if ended == 1 else 'workers leave'}")
    if not parts:
        return "No worker is replaced: the change is in force for what comes next."
    text = "; ".join(parts) + "."
    return f"{text} {busy} of them hold a call now, which is finished first." if busy else text


def _workers(count: int) -> str:
    return "1 worker is" if count == 1 else f"{count} workers are"


def _effect(name: str) -> str:
    if name in WORKER_FIELDS:
        return "replaces the workers"
    if name == "size":
        return "starts or ends workers"
    if name == "enabled":
        return "starts or ends all workers"
    if name == "paused":
        return "refuses or takes new calls at once"
    if name in LIFECYCLE:
        return "judged at the next sweep"
    return "for what comes next"

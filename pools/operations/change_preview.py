"""Preview of a changed pool definition: workers to replace, how many at a time, duration. Changes nothing.

>>> from snakepit.pools.broker.spec import PoolSpec
>>> old = PoolSpec(name="digits", adapter="digits", size=2)
>>> preview_change(old, PoolSpec(name="digits", adapter="digits", size=4), []).summary
'2 more workers start.'
>>> preview_change(old, PoolSpec(name="digits", adapter="digits", size=2, queue_limit=5), []).summary
'No worker is replaced: the change applies to new calls.'
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from snakepit.pools.broker.spec import FIELDS, WORKER_FIELDS, PoolSpec
from snakepit.pools.broker.status import WorkerStatus

LIFECYCLE = ("ttl", "max_requests", "jitter", "min_lifetime", "memory_soft_mb", "memory_hard_mb", "memory_samples")


@dataclass(frozen=True, slots=True)
class FieldChange:
    field: str
    before: Any
    after: Any
    effect: str


@dataclass(frozen=True, slots=True)
class ChangePreview:
    """The effect of a change. `seconds` is an estimate from the load times of the present workers; None: unknown."""

    changes: tuple[FieldChange, ...]
    replaced: int  # workers with a replacement, which is ready first where max_surge allows
    started: int  # additional workers
    ended: int  # workers without a replacement
    busy: int  # of the workers that leave: those with a running call now
    at_once: int
    seconds: float | None
    drain_timeout: float
    summary: str


def preview_change(old: PoolSpec, new: PoolSpec, workers: Sequence[WorkerStatus]) -> ChangePreview:
    """Compute the effect of a new definition. `workers` are the pool's workers from the broker's status."""
    changes = tuple(
        FieldChange(name, getattr(old, name), getattr(new, name), _effect(name))
        for name in FIELDS
        if getattr(old, name) != getattr(new, name)
    )
    present = [one for one in workers if one.state in ("starting", "ready", "draining")]
    before, after = (old.size if old.enabled else 0), (new.size if new.enabled else 0)
    replaced = min(before, after) if old.enabled and new.enabled and new.needs_new_workers(old) else 0
    started, ended = max(0, after - before), max(0, before - after)
    at_once = min(new.max_surge + new.max_unavailable, max(1, replaced))
    loads = [one.load_seconds for one in present if one.load_seconds]
    seconds = _seconds(loads, replaced, at_once, started, new)
    # If only the size shrinks, idle workers leave first. If all are replaced, all busy workers are among them.
    idle = sum(one.load == 0 for one in present)
    busy = len(present) - idle if replaced else max(0, ended - idle)
    counts = replaced, started, ended
    return ChangePreview(changes, *counts, busy, at_once, seconds, new.drain_timeout, _summary(counts, busy, at_once))


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
        parts.append(f"{_workers(replaced)} replaced, {at_once} at a time; each replacement is ready first")
    if started:
        parts.append(f"{started} more {'worker starts' if started == 1 else 'workers start'}")
    if ended:
        parts.append(f"{ended} {'worker stops' if ended == 1 else 'workers stop'}")
    if not parts:
        return "No worker is replaced: the change applies to new calls."
    text = "; ".join(parts) + "."
    return f"{text} Busy workers ({busy} now) finish their calls first." if busy else text


def _workers(count: int) -> str:
    return "1 worker is" if count == 1 else f"{count} workers are"


def _effect(name: str) -> str:
    if name in WORKER_FIELDS:
        return "replaces the workers"
    if name == "size":
        return "starts or stops workers"
    if name == "enabled":
        return "starts or stops all workers"
    if name == "nodes":
        return "starts workers on nodes that match now, stops those of the others"
    if name == "paused":
        return "refuses or takes new calls immediately"
    if name == "job_limits":
        return "applies to the next claims of jobs"
    if name in LIFECYCLE:
        return "applies at the next sweep"
    return "applies to new calls"

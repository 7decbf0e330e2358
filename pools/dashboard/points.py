"""A point of a chart: how a pool stood at one moment, and what it did since the moment before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SPAN = 5.0  # seconds over which a rate is measured: shorter, and a slow pool's rate would jump between 0 and 2
COLUMNS = (
    "at", "ok_rate", "failed_rate", "waiting", "oldest_wait", "ready", "busy", "starting", "draining", "slots", "taken",
    "memory_mb",
)  # fmt: skip
LARGEST = frozenset({"oldest_wait"})  # of several pools the worst counts, not the sum


@dataclass(frozen=True, slots=True)
class Point:
    at: float
    finished: float  # the counters themselves: what came between two points is their difference
    failed: float
    ok_rate: float  # calls a second
    failed_rate: float
    waiting: int
    oldest_wait: float
    ready: int
    busy: int
    starting: int
    draining: int
    slots: int
    taken: int
    memory_mb: float


def points_of(pool: dict[str, Any], workers: Sequence[dict[str, Any]], at: float, before: Sequence[Point]) -> Point:
    states = [worker["state"] for worker in workers if worker["pool"] == pool["name"]]
    finished, failed = float(pool["finished"]), float(pool["failed"])
    earlier = _earlier(before, at - SPAN)
    span = at - earlier.at if earlier else 0.0
    return Point(
        at=at,
        finished=finished,
        failed=failed,
        ok_rate=_rate(finished, earlier.finished, span) if earlier else 0.0,
        failed_rate=_rate(failed, earlier.failed, span) if earlier else 0.0,
        waiting=pool["waiting"],
        oldest_wait=pool["oldest_wait"],
        ready=pool["ready"],
        busy=pool["busy"],
        starting=states.count("starting"),
        draining=states.count("draining") + states.count("stopping"),
        slots=pool["slots"],
        taken=pool["slots"] - pool["free"],
        memory_mb=pool["memory_mb"],
    )


def _earlier(before: Sequence[Point], least: float) -> Point | None:
    """The oldest point that is not older than `least`. From the end: the ring is long and the span is short."""
    found = None
    for point in reversed(before):
        if point.at < least:
            break
        found = point
    return found


def _rate(now: float, then: float, span: float) -> float:
    """A second; never below zero, whatever a counter did."""
    return round(max(0.0, now - then) / span, 3) if span > 0 else 0.0


def row(point: Point) -> list[float]:
    """As the charts take it, in the order of COLUMNS."""
    return [getattr(point, name) for name in COLUMNS]


def summed(pools: Sequence[Sequence[Point]]) -> dict[str, list[float]]:
    """Columns of all pools together. They have their points at the same moments; a wait is the longest of them."""
    moments: dict[float, dict[str, float]] = {}
    for points in pools:
        for point in points:
            there = moments.setdefault(point.at, dict.fromkeys(COLUMNS, 0.0))
            for name in COLUMNS[1:]:
                value = getattr(point, name)
                there[name] = max(there[name], value) if name in LARGEST else round(there[name] + value, 3)
            there["at"] = point.at
    rows = [moments[at] for at in sorted(moments)]
    return {name: [row[name] for row in rows] for name in COLUMNS}

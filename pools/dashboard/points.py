"""A point of a chart: how a pool stood at one moment, and what it did in the seconds before."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from snakepit.pools.broker.stats.histogram import Sparse, quantile, since

SPAN = 5.0  # seconds over which a rate is measured: shorter, and a slow pool's rate would jump between 0 and 2
SPARK = 120  # points of a sparkline
RING = 600  # points: five minutes at two a second
COLUMNS = (
    "at", "ok_rate", "failed_rate", "waiting", "oldest_wait", "ready", "busy", "starting", "draining", "slots", "taken",
    "memory_mb", "p50", "p95", "p99", "wait_p95",
)  # fmt: skip
QUANTILES = {"p50": ("ran", 0.5), "p95": ("ran", 0.95), "p99": ("ran", 0.99), "wait_p95": ("queued", 0.95)}
LARGEST = frozenset({"oldest_wait", *QUANTILES})  # of several pools the worst counts, not the sum
NOTHING: Mapping[str, Sparse] = {"ran": {}, "queued": {}}


@dataclass(frozen=True, slots=True)
class Point:
    at: float
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
    p50: float | None  # seconds; None: no call ended
    p95: float | None
    p99: float | None
    wait_p95: float | None


@dataclass(slots=True)
class _Look:
    """The counters of a pool at one moment: what came since is a difference."""

    at: float
    finished: float
    failed: float
    figures: Mapping[str, Sparse]


@dataclass(slots=True)
class Track:
    """The last minutes of one pool."""

    points: deque[Point] = field(default_factory=lambda: deque(maxlen=RING))
    _looks: deque[_Look] = field(default_factory=deque)

    def add(self, pool: dict[str, Any], states: Sequence[str], figures: Mapping[str, Sparse], at: float) -> None:
        look = _Look(at, float(pool["finished"]), float(pool["failed"]), figures)
        while self._looks and self._looks[0].at < at - SPAN:
            self._looks.popleft()
        then = self._looks[0] if self._looks else look
        self._looks.append(look)
        span = at - then.at
        new = {name: since(figures.get(name, {}), then.figures.get(name, {})) for name in NOTHING}
        self.points.append(
            Point(
                at=round(at, 3),
                ok_rate=_rate(look.finished - then.finished, span),
                failed_rate=_rate(look.failed - then.failed, span),
                waiting=pool["waiting"],
                oldest_wait=pool["oldest_wait"],
                ready=pool["ready"],
                busy=pool["busy"],
                starting=states.count("starting"),
                draining=states.count("draining") + states.count("stopping"),
                slots=pool["slots"],
                taken=pool["slots"] - pool["free"],
                memory_mb=pool["memory_mb"],
                **{name: _short(quantile(new[of], share)) for name, (of, share) in QUANTILES.items()},
            )
        )

    def spark(self) -> list[float]:
        """Calls a second in the last minute, a value for every other second."""
        return [point.ok_rate + point.failed_rate for point in list(self.points)[-SPARK:][::-4][::-1]]


def row(point: Point) -> list[float | None]:
    """As the charts take it, in the order of COLUMNS."""
    return [getattr(point, name) for name in COLUMNS]


def summed(pools: Sequence[Sequence[Point]]) -> dict[str, list[float | None]]:
    """Columns of all pools together. They have their points at the same moments; a wait is the longest of them."""
    moments: dict[float, dict[str, float | None]] = {}
    for points in pools:
        for point in points:
            there = moments.setdefault(point.at, dict.fromkeys(COLUMNS))
            for name in COLUMNS[1:]:
                there[name] = together(name, there[name], getattr(point, name))
            there["at"] = point.at
    rows = [moments[at] for at in sorted(moments)]
    return {name: [row[name] for row in rows] for name in COLUMNS}


def together(name: str, one: float | None, other: float | None) -> float | None:
    """One figure of two pools; None is a figure that a pool does not have."""
    if one is None or other is None:
        return other if one is None else one
    return max(one, other) if name in LARGEST else round(one + other, 3)


def _rate(count: float, span: float) -> float:
    """A second; never below zero, whatever a counter did."""
    return round(max(0.0, count) / span, 3) if span > 0 else 0.0


def _short(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)

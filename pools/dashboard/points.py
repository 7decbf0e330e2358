"""A point of a chart: the state of a pool at one moment, and its rates in the seconds before."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from snakepit.pools.broker.stats.histogram import Sparse, quantile, since
from snakepit.pools.broker.status import PoolHistograms, PoolStatus

SPAN = 5.0  # seconds over which a rate is measured; with fewer, a slow pool's rate would jump between 0 and 2
SPARK = 120  # points of a sparkline
RING = 600  # points: five minutes at two a second
COLUMNS = (
    "at", "ok_rate", "failed_rate", "waiting", "oldest_wait", "ready", "busy", "starting", "draining", "slots", "taken",
    "memory_mb", "p50", "p95", "p99", "wait_p95",
)  # fmt: skip
LARGEST = frozenset({"oldest_wait", "p50", "p95", "p99", "wait_p95"})  # of several pools: the worst, not the sum


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
class PoolSeries:
    """The points of one pool in the last minutes."""

    points: deque[Point] = field(default_factory=lambda: deque(maxlen=RING))
    _looks: deque[tuple[float, PoolStatus, PoolHistograms]] = field(default_factory=deque)  # with the time of each

    def add(self, pool: PoolStatus, states: Sequence[str], histograms: PoolHistograms, at: float) -> None:
        while self._looks and self._looks[0][0] < at - SPAN:
            self._looks.popleft()
        self._looks.append((at, pool, histograms))
        began, then, before = self._looks[0]
        span = at - began
        ran, queued = since(histograms.ran, before.ran), since(histograms.queued, before.queued)
        self.points.append(
            Point(
                at=round(at, 3),
                ok_rate=_rate(pool.finished - then.finished, span),
                failed_rate=_rate(pool.failed - then.failed, span),
                waiting=pool.waiting,
                oldest_wait=pool.oldest_wait,
                ready=pool.ready,
                busy=pool.busy,
                starting=states.count("starting"),
                draining=states.count("draining") + states.count("stopping"),
                slots=pool.slots,
                taken=pool.taken,
                memory_mb=pool.memory_mb,
                p50=_quantile(ran, 0.5),
                p95=_quantile(ran, 0.95),
                p99=_quantile(ran, 0.99),
                wait_p95=_quantile(queued, 0.95),
            )
        )

    def spark(self) -> list[float]:
        """Calls a second in the last minute, a value for every other second."""
        return [point.ok_rate + point.failed_rate for point in list(self.points)[-SPARK:][::-4][::-1]]


def row(point: Point) -> list[float | None]:
    """A point in the order of COLUMNS, for the charts."""
    return [getattr(point, name) for name in COLUMNS]


def summed(pools: Sequence[Sequence[Point]]) -> dict[str, list[float | None]]:
    """Columns of all pools together. Their points have the same times; of waits, the longest counts."""
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
    """One figure of two pools; None: a pool does not have it."""
    if one is None or other is None:
        return other if one is None else one
    return max(one, other) if name in LARGEST else round(one + other, 3)


def _rate(count: float, span: float) -> float:
    """Per second; never below zero, because a counter may restart."""
    return round(max(0.0, count) / span, 3) if span > 0 else 0.0


def _quantile(counts: Sparse, share: float) -> float | None:
    seconds = quantile(counts, share)
    return None if seconds is None else round(seconds, 6)

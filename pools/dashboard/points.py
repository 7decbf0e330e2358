"""A point of a chart: the state of a pool at one moment, and its rates in the seconds before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from snakepit.pools.broker.stats.histogram import Sparse, merged, quantile, since
from snakepit.pools.broker.status import PoolHistograms, PoolStatus

SPAN = 5.0  # seconds over which a rate is measured; with fewer, a slow pool's rate would jump between 0 and 2
GAP = 8.0  # seconds without a reading after which a line breaks; it is longer than a page's poll
SPARK_SLOTS, SPARK_SLOT = 30, 2.0  # a sparkline: so many values, each of so many seconds
RING = 600  # points: five minutes at two a second
COLUMNS = (
    "at", "ok_rate", "failed_rate", "waiting", "oldest_wait", "ready", "busy", "starting", "draining", "slots", "taken",
    "memory_mb", "p50", "p95", "p99", "wait_p95",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Point:
    at: float
    ok_rate: float | None  # calls a second; None: nothing before to compare with
    failed_rate: float | None
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
    ran: Sparse = field(default_factory=dict)  # the calls of the last seconds, by their run time
    queued: Sparse = field(default_factory=dict)
    _samples: deque[tuple[float, PoolStatus, PoolHistograms]] = field(default_factory=deque)  # with the time of each

    def add(self, pool: PoolStatus, states: Sequence[str], histograms: PoolHistograms, at: float) -> None:
        while self._samples and self._samples[0][0] < at - SPAN:
            self._samples.popleft()
        self._samples.append((at, pool, histograms))
        began, then, before = self._samples[0]
        span = at - began
        self.ran = ran = since(histograms.ran, before.ran)
        self.queued = queued = since(histograms.queued, before.queued)
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


def is_set_back(before: float, at: float) -> bool:
    """Whether the clock was set back: points of a later time would stay in front until it has come there again.

    Two looks at the same time may arrive in the wrong order.
    """
    return at < before - GAP


def spark(points: Sequence[Point]) -> list[float | None]:
    """Calls a second in the last minute of these points; None where nothing was measured."""
    end, known = points[-1].at, list(points)[-2 * int(SPARK_SLOTS * SPARK_SLOT) :]
    values: list[float | None] = []
    for slot in range(SPARK_SLOTS):
        until = end - (SPARK_SLOTS - 1 - slot) * SPARK_SLOT
        # A rate is of the seconds before its point, so it holds for these seconds.
        near = [point for point in known if until - SPAN < point.at <= until]
        ok = near[-1].ok_rate if near else None
        values.append(None if ok is None else ok + (near[-1].failed_rate or 0.0))
    return values


def row(point: Point) -> list[float | None]:
    """A point in the order of COLUMNS, for the charts."""
    return [getattr(point, name) for name in COLUMNS]


def combined(series: Sequence[PoolSeries]) -> Point | None:
    """The newest points of all pools as one: sums, the longest wait, and percentiles of all their calls."""
    points = [one.points[-1] for one in series]
    if not points:
        return None
    ran, queued = merged(one.ran for one in series), merged(one.queued for one in series)
    return Point(
        at=points[0].at,
        ok_rate=_sum(point.ok_rate for point in points),
        failed_rate=_sum(point.failed_rate for point in points),
        waiting=sum(point.waiting for point in points),
        oldest_wait=max(point.oldest_wait for point in points),
        ready=sum(point.ready for point in points),
        busy=sum(point.busy for point in points),
        starting=sum(point.starting for point in points),
        draining=sum(point.draining for point in points),
        slots=sum(point.slots for point in points),
        taken=sum(point.taken for point in points),
        memory_mb=sum(point.memory_mb for point in points),
        p50=_quantile(ran, 0.5),
        p95=_quantile(ran, 0.95),
        p99=_quantile(ran, 0.99),
        wait_p95=_quantile(queued, 0.95),
    )


def as_columns(points: Iterable[Point]) -> dict[str, list[float | None]]:
    """Points as columns, with an empty row where nothing was measured: a line there would be invented."""
    rows: list[list[float | None]] = []
    before = None
    for point in points:
        if before is not None and point.at - before > GAP:
            rows.append([before + 1, *[None] * (len(COLUMNS) - 1)])
        rows.append(row(point))
        before = point.at
    return {name: [values[index] for values in rows] for index, name in enumerate(COLUMNS)}


def _sum(rates: Iterable[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return round(sum(known), 3) if known else None


def _rate(count: float, span: float) -> float | None:
    """Per second; never below zero, because a counter may restart."""
    return round(max(0.0, count) / span, 3) if span > 0 else None


def _quantile(counts: Sparse, share: float) -> float | None:
    seconds = quantile(counts, share)
    return None if seconds is None else round(seconds, 6)

"""The history of pools: minutes aggregated into quarters of an hour, pruned, and read as columns of a chart.

    recorder ─▶ minutes, kept a day ─▶ roll_up() ─▶ quarters of an hour, kept a week ─▶ columns()

Each roll-up recomputes quarters from the minutes that remain, so it can repeat or run in two places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from snakepit.pools.broker.stats.histogram import merged, quantile
from snakepit.pools.models.period import MINUTE, QUARTER, PoolPeriod

MINUTES_KEPT = timedelta(hours=25)
QUARTERS_KEPT = timedelta(days=8)
LOOK_BACK = 8  # quarters that a roll-up recomputes, in case beat was down
SUMMED = ("ok", "failed", "refused", "died")
AVERAGED = ("ready", "busy", "starting", "draining", "slots", "taken", "memory_mb")
LARGEST = ("waiting", "oldest_wait")
HISTOGRAMS = ("recycled", "ran", "queued")
LATE = 10  # seconds: after a clock was set back, minutes begin after their first second, which is no gap
BY_MINUTE = 6 * 3600  # seconds: charts up to this span use minutes


def roll_up(now: datetime) -> int:
    """Write the completed quarters; returns the number of rows."""
    end = _floor(now, QUARTER)
    begin = end - timedelta(seconds=LOOK_BACK * QUARTER)
    groups: dict[tuple[str, str, datetime], list[PoolPeriod]] = {}
    for row in PoolPeriod.objects.filter(seconds=MINUTE, at__gte=begin, at__lt=end):
        groups.setdefault((row.node, row.pool, _floor(row.at, QUARTER)), []).append(row)
    rows = [
        PoolPeriod(node=node, pool=pool, at=at, seconds=QUARTER, **combine(parts))
        for (node, pool, at), parts in groups.items()
    ]
    fields = [*SUMMED, *AVERAGED, *LARGEST, *HISTOGRAMS]
    unique = ["node", "pool", "seconds", "at"]
    PoolPeriod.objects.bulk_create(rows, update_conflicts=True, unique_fields=unique, update_fields=fields)
    return len(rows)


def prune(now: datetime) -> int:
    """Delete periods that are too old for every chart; returns the number of rows."""
    old = PoolPeriod.objects.filter(seconds=MINUTE, at__lt=now - MINUTES_KEPT).delete()[0]
    return old + PoolPeriod.objects.filter(seconds=QUARTER, at__lt=now - QUARTERS_KEPT).delete()[0]


def combine(parts: Iterable[PoolPeriod]) -> dict[str, Any]:
    """Combine consecutive periods of one pool into one."""
    rows = list(parts)
    return {
        **{name: sum(getattr(row, name) for row in rows) for name in SUMMED},
        **{name: round(sum(getattr(row, name) for row in rows) / len(rows), 2) for name in AVERAGED},
        **{name: max(getattr(row, name) for row in rows) for name in LARGEST},
        **{name: merged(getattr(row, name) for row in rows) for name in HISTOGRAMS},
    }


def columns(pool: str, span: int, now: datetime, node: str = "") -> dict[str, list[float | None]]:
    """The last `span` seconds of a pool, or of all (""), on all nodes or on one. Gaps in time are gaps in the lines."""
    step = MINUTE if span <= BY_MINUTE else QUARTER
    begin = now - timedelta(seconds=span)
    rows = _rows(pool, node, step, begin)
    if step == QUARTER:
        # Minutes that beat has not rolled up yet are shown too, also where beat does not run at all.
        rows += _quarters(_rows(pool, node, MINUTE, rows[-1].at + timedelta(seconds=QUARTER) if rows else begin))
    moments: dict[float, list[PoolPeriod]] = {}
    for row in _once(rows, step):
        moments.setdefault(_floor(row.at, step).timestamp(), []).append(row)
    points = [_point(at, parts) for at, parts in moments.items()]
    return _with_gaps(points, step)


def _rows(pool: str, node: str, seconds: int, begin: datetime) -> list[PoolPeriod]:
    rows = PoolPeriod.objects.filter(seconds=seconds, at__gte=begin).order_by("at")
    rows = rows.filter(node=node[:200]) if node else rows
    return list(rows.filter(pool=pool) if pool else rows)


def _once(rows: Iterable[PoolPeriod], step: int) -> Iterator[PoolPeriod]:
    """Combine the rows of one pool on one node in one step: a broker restarted in it, or its clock was set back."""
    groups: dict[tuple[datetime, str, str], list[PoolPeriod]] = {}
    for row in rows:
        groups.setdefault((_floor(row.at, step), row.node, row.pool), []).append(row)
    for (_, node, pool), parts in groups.items():
        seconds, began = max(row.seconds for row in parts), min(row.at for row in parts)
        whole = {"node": node, "pool": pool, "at": began, "seconds": seconds}
        yield parts[0] if len(parts) == 1 else PoolPeriod(**whole, **combine(parts))


def _quarters(minutes: Iterable[PoolPeriod]) -> list[PoolPeriod]:
    """Combine minutes by the quarter; `seconds` of each is the time that its minutes cover."""
    groups: dict[tuple[datetime, str, str], list[PoolPeriod]] = {}
    for row in minutes:
        groups.setdefault((_floor(row.at, QUARTER), row.node, row.pool), []).append(row)
    return [
        PoolPeriod(node=node, pool=pool, at=at, seconds=MINUTE * len(parts), **combine(parts))
        for (at, node, pool), parts in groups.items()
    ]


def _point(step: float, parts: list[PoolPeriod]) -> dict[str, float | None]:
    """Merge rows of several pools in one step: counts and workers add up; of waits, the longest counts.

    A broker that started within the step has no point, and no seconds in its rates, from before that.
    """
    at = min(row.at for row in parts).timestamp()
    seconds = max(1.0, step + max(row.seconds for row in parts) - at)
    ran, queued = (merged({int(key): count for key, count in getattr(row, name).items()} for row in parts)
                   for name in ("ran", "queued"))  # fmt: skip
    return {
        "at": at,
        "ok_rate": round(sum(row.ok for row in parts) / seconds, 3),
        "failed_rate": round(sum(row.failed for row in parts) / seconds, 3),
        **{name: round(sum(getattr(row, name) for row in parts), 2) for name in AVERAGED},
        **{name: max(getattr(row, name) for row in parts) for name in LARGEST},
        "p50": quantile(ran, 0.5),
        "p95": quantile(ran, 0.95),
        "p99": quantile(ran, 0.99),
        "wait_p95": quantile(queued, 0.95),
    }


def _with_gaps(points: list[dict[str, float | None]], step: int) -> dict[str, list[float | None]]:
    if not points:
        return {}
    rows: list[dict[str, float | None]] = []
    for point in points:
        before = rows[-1]["at"] if rows else None
        end = None if before is None else before // step * step + step
        if end is not None and (point["at"] or 0) > end + LATE:
            rows.append({**dict.fromkeys(point), "at": end})
        rows.append(point)
    return {name: [row[name] for row in rows] for name in points[0]}


def _floor(moment: datetime, seconds: int) -> datetime:
    return datetime.fromtimestamp(moment.timestamp() // seconds * seconds, UTC)

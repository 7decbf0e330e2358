"""The data of the charts as JSON: columns of equal length, and marks on the time axis."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from snakepit.pools import history
from snakepit.pools.dashboard.hub import hub
from snakepit.pools.dashboard.page import Visit, page
from snakepit.pools.dashboard.points import COLUMNS, GAP, as_columns
from snakepit.pools.dashboard.state import DashboardState
from snakepit.pools.models import Event
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.period import MINUTE

SPANS = {300: "5 min", 900: "15 min", 3600: "1 h", 6 * 3600: "6 h", 24 * 3600: "24 h", 7 * 24 * 3600: "7 d"}
LIVE = 300  # seconds: the span that the hub's own memory holds


MARKS = {"worker.recycled": "recycle", "worker.died": "death", "worker.killed": "death", "pool.applied": "change"}
MOST_MARKS = 200


def chosen_span(request: HttpRequest) -> int:
    """Seconds of the charts on a page, `?span=`."""
    text = request.GET.get("span", "")
    return int(text) if text in map(str, SPANS) else LIVE


def span_choice(chosen: int) -> list[dict[str, Any]]:
    return [{"seconds": span, "title": title, "current": span == chosen} for span, title in SPANS.items()]


def of_charts(request: HttpRequest, state: DashboardState) -> dict[str, Any]:
    """The choices of a page with charts: the time span, and the node where there are several."""
    span = chosen_span(request)
    names = [node.name for node in state.cluster.nodes] if state.cluster else []
    chosen = request.GET.get("node", "")
    return {
        "span": span,
        "spans": span_choice(span),
        "node": chosen if chosen in names else "",
        "node_names": names,
    }


@page("series")
def series(request: HttpRequest, visit: Visit) -> HttpResponse:
    """`?pool=&span=&node=`: one pool, or all together; seconds, one of SPANS; one node, or all together."""
    text = request.GET.get("span", str(LIVE))
    pool, node = (request.GET.get(name, "").replace("\0", "") for name in ("pool", "node"))  # PostgreSQL refuses a NUL
    if text not in map(str, SPANS):
        choice = ", ".join(map(str, SPANS))
        return HttpResponse(f"span: {text!r} is none of {choice}", status=400, content_type="text/plain")
    state, span, now = visit.state(), int(text), utc_now()
    if span == LIVE:
        found = with_past(as_columns(hub.store.points(pool, node=node)), pool, node)
    else:
        found = history.columns(pool, span, now, node)
    if span == LIVE and state.cluster is None:
        marks = live_marks(state, pool)
    else:
        marks = old_marks(pool, now - timedelta(seconds=span), node)
    return JsonResponse({"live": COLUMNS, "columns": found, "marks": marks})


def with_past(found: dict[str, list[float | None]], pool: str, node: str = "") -> dict[str, list[float | None]]:
    """Add the minutes of the database wherever no page was open, because the hub only collects while one is.

    A minute is a level line with a gap after it: a slope to the next point would show values never measured.
    """
    now = utc_now().timestamp()
    past = history.columns(pool, LIVE + MINUTE, datetime.fromtimestamp(now, UTC), node)
    rows = [list(values) for values in zip(*(found[name] for name in COLUMNS), strict=True)]
    unseen = _unseen([values[0] or 0.0 for values in rows], now)
    for index, at in enumerate(past.get("at", ())):
        values = [past[name][index] if name in past else None for name in COLUMNS[1:]]
        for begin, end in unseen:
            until = (at or 0.0) // MINUTE * MINUTE + MINUTE - 1  # `at` is later in the minute of a broker's start
            first, last = max(at or 0.0, begin), min(until, end)
            if last - first >= 2:
                rows += [[first, *values], [last - 1, *values], [last, *[None] * len(values)]]
    rows.sort(key=lambda values: values[0] or 0.0)
    return {name: [values[index] for values in rows] for index, name in enumerate(COLUMNS)}


def _unseen(moments: list[float], now: float) -> list[tuple[float, float]]:
    """The spans of the chart in which nothing was measured."""
    edges = [now - LIVE, *moments, now]
    return [(begin + 1, end) for begin, end in pairwise(edges) if end - begin > GAP]


def live_marks(state: DashboardState, pool: str) -> list[dict[str, Any]]:
    found = [one for one in state.events_of(pool=pool) if one.kind in MARKS and one.at > state.seen_at - LIVE]
    return [_mark(one.kind, one.at, one.worker or one.pool, one.reason) for one in found[:MOST_MARKS]]


def old_marks(pool: str, begin: datetime, node: str = "") -> list[dict[str, Any]]:
    """The newest marks from the database; a chart of a week has no room for more."""
    rows = Event.objects.filter(kind__in=MARKS, at__gte=begin)
    rows = rows.filter(pool=pool) if pool else rows
    rows = rows.filter(node=node[:200]) if node else rows
    found = rows.order_by("-pk").values("kind", "at", "worker", "pool", "reason")
    return [
        _mark(one["kind"], one["at"].timestamp(), one["worker"] or one["pool"], one["reason"])
        for one in found[:MOST_MARKS]
    ]


def _mark(kind: str, at: float, by: str, reason: str) -> dict[str, Any]:
    return {
        "at": at,
        "kind": MARKS[kind],
        "text": f"{by} {kind.partition('.')[2]}{f' ({reason})' if reason else ''}",
    }

"""The data of the charts as JSON: columns of equal length, and marks on the time axis."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from snakepit.pools import history
from snakepit.pools.dashboard.hub import hub
from snakepit.pools.dashboard.page import Visit, page
from snakepit.pools.dashboard.points import COLUMNS, summed
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


@page("series")
def series(request: HttpRequest, visit: Visit) -> HttpResponse:
    """`?pool=&span=`: one pool, or all together; seconds, one of SPANS."""
    pool, text = request.GET.get("pool", ""), request.GET.get("span", str(LIVE))
    if text not in map(str, SPANS):
        choice = ", ".join(map(str, SPANS))
        return HttpResponse(f"span: {text!r} is none of {choice}", status=400, content_type="text/plain")
    state, span = visit.state(), int(text)
    if span == LIVE:
        found, marks = with_past(live_columns(state, pool), pool), live_marks(state, pool)
    else:
        now = utc_now()
        found, marks = history.columns(pool, span, now), old_marks(pool, now - timedelta(seconds=span))
    return JsonResponse({"live": COLUMNS, "columns": found, "marks": marks})


def live_columns(state: DashboardState, pool: str) -> dict[str, list[float | None]]:
    """The last minutes, from the memory of the hub."""
    names = [pool] if pool else [one.name for one in state.pools]
    return summed([hub.store.points(name) for name in names])


def with_past(found: dict[str, list[float | None]], pool: str) -> dict[str, list[float | None]]:
    """Add the minutes of the database before the first point, because the hub only collects while pages are open."""
    past = history.columns(pool, LIVE, utc_now())
    begin = next((at for at in found["at"] if at is not None), float("inf"))
    kept = [index for index, at in enumerate(past.get("at", ())) if at is not None and at + MINUTE < begin]
    return {name: [*_level_lines(name, past, kept), *found[name]] for name in found}


def _level_lines(name: str, past: dict[str, list[float | None]], kept: list[int]) -> Iterator[float | None]:
    """Draw a minute as a level line with a gap after it: a slope to the next point would show values never measured."""
    for index in kept:
        value, at = past[name][index] if name in past else None, past["at"][index] or 0.0
        yield from (at, at + MINUTE - 2, at + MINUTE - 1) if name == "at" else (value, value, None)


def live_marks(state: DashboardState, pool: str) -> list[dict[str, Any]]:
    found = [one for one in state.events_of(pool=pool) if one.kind in MARKS and one.at > state.seen_at - LIVE]
    return [_mark(one.kind, one.at, one.worker or one.pool, one.reason) for one in found[:MOST_MARKS]]


def old_marks(pool: str, begin: datetime) -> list[dict[str, Any]]:
    """The newest marks from the database; a chart of a week has no room for more."""
    rows = Event.objects.filter(kind__in=MARKS, at__gte=begin)
    found = (rows.filter(pool=pool) if pool else rows).order_by("-pk").values("kind", "at", "worker", "pool", "reason")
    return [
        _mark(one["kind"], one["at"].timestamp(), one["worker"] or one["pool"], one["reason"])
        for one in found[:MOST_MARKS]
    ]


def _mark(kind: str, at: float, who: str, reason: str) -> dict[str, Any]:
    return {"at": at, "kind": MARKS[kind], "text": f"{who} {kind.partition('.')[2]}{f' ({reason})' if reason else ''}"}

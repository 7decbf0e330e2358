"""The figures of the charts as JSON: columns of equal length, and the marks on the time axis."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from pools.dashboard.board import Facts
from pools.dashboard.hub import hub
from pools.dashboard.page import Visit, page
from pools.dashboard.points import COLUMNS, summed

SPANS = {300: "5 min", 900: "15 min", 3600: "1 h", 6 * 3600: "6 h", 24 * 3600: "24 h", 7 * 24 * 3600: "7 d"}
LIVE = 300  # seconds: the span that the hub's own memory holds


@page("series")
def series(request: HttpRequest, visit: Visit) -> HttpResponse:
    """`?pool=&span=`: one pool, or all together; seconds, one of SPANS."""
    pool, text = request.GET.get("pool", ""), request.GET.get("span", str(LIVE))
    if text not in map(str, SPANS):
        choice = ", ".join(map(str, SPANS))
        return HttpResponse(f"span: {text!r} is none of {choice}", status=400, content_type="text/plain")
    facts = visit.facts()
    found = {"live": COLUMNS, "columns": live_columns(facts, pool), "marks": []}
    return JsonResponse(found)


def live_columns(facts: Facts, pool: str) -> dict[str, list[Any]]:
    """The last minutes as the hub remembers them."""
    names = [pool] if pool else [one["name"] for one in facts.pools]
    return summed([hub.board.points(name) for name in names])

"""The first page: what needs somebody, how much is going on, and every pool in a line."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from pools.dashboard.board import Facts
from pools.dashboard.page import Visit, page, show
from pools.dashboard.region import Context, region

SUMMED = ("size", "ready", "busy", "slots", "free", "waiting")


@page("overview")
def overview(request: HttpRequest, visit: Visit) -> HttpResponse:
    return show(request, visit, "snakepit/overview.html")


@region("totals", "snakepit/_totals.html")
def totals(facts: Facts, _: str) -> Context:
    sums = {
        name: sum(pool[name] for pool in facts.pools) for name in ("size", "ready", "busy", "slots", "free", "waiting")
    }
    points = facts.rates.values()
    return {
        **sums,
        "taken": sums["slots"] - sums["free"],
        "oldest_wait": max((pool["oldest_wait"] for pool in facts.pools), default=0.0),
        "ok_rate": sum(point.ok_rate for point in points),
        "failed_rate": sum(point.failed_rate for point in points),
        "memory_mb": sum(pool["memory_mb"] for pool in facts.pools),
    }

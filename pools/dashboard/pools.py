"""The list of pools."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from pools.dashboard.board import Facts
from pools.dashboard.hub import hub
from pools.dashboard.page import Visit, page, show
from pools.dashboard.region import Context, region

SPARK = 60  # points of a sparkline


@page("pools")
def pools(request: HttpRequest, visit: Visit) -> HttpResponse:
    return show(request, visit, "snakepit/pools.html")


@region("pools", "snakepit/_pools.html")
def table(facts: Facts, _: str) -> Context:
    rows = []
    for pool in facts.pools:
        points = hub.board.points(pool["name"])[-SPARK * 2 :: 2]
        taken = pool["slots"] - pool["free"]
        rows.append({
            **pool, "taken": taken, "rate": facts.rates.get(pool["name"]),
            "spark": [point.ok_rate + point.failed_rate for point in points],
            "kind": "warn" if pool["slots"] and taken == pool["slots"] else "",
        })  # fmt: skip
    return {"rows": rows}

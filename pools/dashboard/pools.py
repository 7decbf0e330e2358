"""The list of pools."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse

from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.region import Context, region
from snakepit.pools.dashboard.snippets import rest, shell
from snakepit.pools.dashboard.state import Facts

CROWDED = 0.9  # share of the slots in use from which the bar warns


@page("pools")
def pools(request: HttpRequest, visit: Visit) -> HttpResponse:
    return show(
        request, visit, "snakepit/pools.html", {"copies": [*rest(request, "GET", "pools"), shell("snakepit status")]}
    )


@region("pools", "snakepit/_pools.html")
def table(facts: Facts, _: str) -> Context:
    return {"rows": [line(facts, pool) for pool in facts.pools]}


def line(facts: Facts, pool: dict[str, Any]) -> dict[str, Any]:
    """A pool with what is derived from its row."""
    taken = pool["slots"] - pool["free"]
    crowded = pool["slots"] > 0 and taken >= CROWDED * pool["slots"]
    return {
        **pool,
        "taken": taken,
        "kind": "warn" if crowded else "",
        "rate": facts.rates.get(pool["name"]),
        "spark": facts.sparks.get(pool["name"], []),
    }

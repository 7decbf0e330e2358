"""The list of pools."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse

from snakepit.pools.broker.status import PoolStatus
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.points import Point
from snakepit.pools.dashboard.region import Context, region
from snakepit.pools.dashboard.snippets import rest, shell
from snakepit.pools.dashboard.state import DashboardState

CROWDED = 0.9  # share of the slots in use from which the bar warns


@page("pools")
def pools(request: HttpRequest, visit: Visit) -> HttpResponse:
    return show(
        request, visit, "snakepit/pools.html", {"snippets": [*rest(request, "GET", "pools"), shell("snakepit status")]}
    )


@region("pools", "snakepit/_pools.html")
def table(state: DashboardState, _: str) -> Context:
    return {"rows": [PoolRow.of(state, pool) for pool in state.pools]}


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A pool with what is derived from several statuses."""

    pool: PoolStatus
    kind: str  # "warn" where nearly all slots are in use
    rate: Point | None
    spark: list[float | None]

    @classmethod
    def of(cls, state: DashboardState, pool: PoolStatus) -> PoolRow:
        crowded = pool.slots > 0 and pool.taken >= CROWDED * pool.slots
        kind = "warn" if crowded else ""
        return cls(pool, kind, state.rates.get(pool.name), state.sparks.get(pool.name, []))

"""The list of pools."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse

from snakepit.pools.broker.status import PoolStatus
from snakepit.pools.client.cluster_status import MergedPool, PoolOnNode
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.points import Point
from snakepit.pools.dashboard.region import Context, region
from snakepit.pools.dashboard.snippets import rest, shell
from snakepit.pools.dashboard.state import DashboardState

DIFFERENT = 8  # nodes that have a row of their own below a pool
CROWDED = 0.9  # share of the slots in use from which the bar warns


@page("pools")
def pools(request: HttpRequest, visit: Visit) -> HttpResponse:
    several = visit.state().cluster is not None
    path, words = ("pools?node=all", "snakepit status --all-nodes") if several else ("pools", "snakepit status")
    return show(request, visit, "snakepit/pools.html", {"snippets": [*rest(request, "GET", path), shell(words)]})


@region("pools", "snakepit/_pools.html")
def table(state: DashboardState, _: str) -> Context:
    return {"rows": [PoolRow.of(state, pool) for pool in (state.cluster or state).pools], "cluster": state.cluster}


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A pool, on all nodes where there are several, with what is derived from several statuses."""

    pool: PoolStatus | MergedPool
    kind: str  # "warn" where nearly all slots are in use
    rate: Point | None
    spark: list[float | None]
    different: tuple[PoolOnNode, ...] = ()  # nodes whose state or number of workers is not that of most nodes

    @classmethod
    def of(cls, state: DashboardState, pool: PoolStatus | MergedPool) -> PoolRow:
        crowded = pool.slots > 0 and pool.taken >= CROWDED * pool.slots
        kind = "warn" if crowded else ""
        different = pool.different[:DIFFERENT] if isinstance(pool, MergedPool) else ()
        return cls(pool, kind, state.rates.get(pool.name), state.sparks.get(pool.name, []), different)

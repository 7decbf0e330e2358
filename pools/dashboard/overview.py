"""The first page: alerts, totals, and one row for each pool."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse

from snakepit.pools.dashboard import cluster
from snakepit.pools.dashboard.alerts import Alert
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.region import Context, region
from snakepit.pools.dashboard.series import of_charts
from snakepit.pools.dashboard.snippets import rest, shell
from snakepit.pools.dashboard.state import DashboardState

SUMMED = ("size", "ready", "busy", "slots", "free", "waiting")
SHOWN = 12  # events


@page("overview")
def overview(request: HttpRequest, visit: Visit) -> HttpResponse:
    several = visit.state().cluster is not None
    path, words = ("status?node=all", "snakepit status --all-nodes") if several else ("status", "snakepit status")
    snippets = [*rest(request, "GET", path), shell(words)]
    context = {**of_charts(request, visit.state()), "snippets": snippets}
    return show(request, visit, "snakepit/overview.html", context)


@region("alerts", "snakepit/_alerts.html")
def alerts(state: DashboardState, _: str) -> Context:
    return {
        "alerts": [
            {"alert": alert, "url": _url(alert.view, alert.argument, alert.part), "page": _view_url(alert)}
            for alert in state.alerts
        ],
        "pools": len((state.cluster or state).pools),
        "workers": len(state.all_workers),
    }


def _url(view: str, argument: str, part: str = "") -> str:
    try:
        if "=" in argument:
            return f"{reverse('snakepit:' + view)}?{argument}"
        found = reverse("snakepit:" + view, args=[argument] if argument else [])
        return f"{found}#{part}" if part else found
    except NoReverseMatch:
        return ""


def _view_url(alert: Alert) -> str:
    """For users who may only view: the page of the object that the order is about."""
    if alert.view.startswith("node-"):
        return _url("nodes", "")
    return _url("pool" if alert.view.startswith("pool-") else alert.view, alert.argument)


region("cluster", "snakepit/_cluster.html")(cluster.nodes)


@region("totals", "snakepit/_totals.html")
def totals(state: DashboardState, _: str) -> Context:
    pools = (state.cluster or state).pools
    sums: dict[str, int] = {name: sum(getattr(pool, name) for pool in pools) for name in SUMMED}
    return {
        **sums,
        "taken": sums["slots"] - sums["free"],
        "oldest_wait": max((pool.oldest_wait for pool in pools), default=0.0),
        "rate": state.total,
        "memory_mb": sum(pool.memory_mb for pool in pools),
        **cluster.answering(state),
    }


@region("feed", "snakepit/_feed.html")
def feed(state: DashboardState, _: str) -> Context:
    return {"events": state.events[:SHOWN]}

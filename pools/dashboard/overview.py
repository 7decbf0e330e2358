"""The first page: what needs somebody, how much is going on, and every pool in a line."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse

from snakepit.pools.dashboard.alerts import Need
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.region import Context, region
from snakepit.pools.dashboard.series import chosen_span, span_choice
from snakepit.pools.dashboard.snippets import rest, shell
from snakepit.pools.dashboard.state import Facts

SUMMED = ("size", "ready", "busy", "slots", "free", "waiting")
SHOWN = 12  # events


@page("overview")
def overview(request: HttpRequest, visit: Visit) -> HttpResponse:
    span = chosen_span(request)
    copies = [*rest(request, "GET", "status"), shell("snakepit status")]
    return show(request, visit, "snakepit/overview.html", {"span": span, "spans": span_choice(span), "copies": copies})


@region("alerts", "snakepit/_alerts.html")
def needs(facts: Facts, _: str) -> Context:
    return {
        "needs": [
            {"need": need, "url": _url(need.view, need.argument, need.part), "look": _look(need)}
            for need in facts.needs
        ]
    }


def _url(view: str, argument: str, part: str = "") -> str:
    try:
        if "=" in argument:
            return f"{reverse('snakepit:' + view)}?{argument}"
        found = reverse("snakepit:" + view, args=[argument] if argument else [])
        return f"{found}#{part}" if part else found
    except NoReverseMatch:
        return ""


def _look(need: Need) -> str:
    """For who may only look: the page of what the order is about."""
    if need.view.startswith("node-"):
        return _url("nodes", "")
    return _url("pool" if need.view.startswith("pool-") else need.view, need.argument)


@region("totals", "snakepit/_totals.html")
def totals(facts: Facts, _: str) -> Context:
    sums = {name: sum(pool[name] for pool in facts.pools) for name in SUMMED}
    points = facts.rates.values()
    return {
        **sums,
        "taken": sums["slots"] - sums["free"],
        "oldest_wait": max((pool["oldest_wait"] for pool in facts.pools), default=0.0),
        "ok_rate": sum(point.ok_rate for point in points),
        "failed_rate": sum(point.failed_rate for point in points),
        "p50": worst(point.p50 for point in points),
        "p95": worst(point.p95 for point in points),
        "memory_mb": sum(pool["memory_mb"] for pool in facts.pools),
    }


@region("feed", "snakepit/_feed.html")
def feed(facts: Facts, _: str) -> Context:
    return {"events": facts.events[:SHOWN]}


def worst(values: Any) -> float | None:
    return max((value for value in values if value is not None), default=None)

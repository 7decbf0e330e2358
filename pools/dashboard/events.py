"""Events of the brokers. The newest come live from the broker, older ones from the database, paged by key."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from snakepit.pools.broker.events import Kind
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.region import Context, region
from snakepit.pools.dashboard.snippets import rest, shell
from snakepit.pools.dashboard.state import DashboardState
from snakepit.pools.models import Event
from snakepit.pools.models.observed import LEVELS

PAGE = 50
FILTERS = ("pool", "node", "worker", "kind", "level")


@page("events")
def events(request: HttpRequest, visit: Visit) -> HttpResponse:
    """`?pool=&node=&worker=&kind=&level=`, and `before=` (an id) for the rows of the database."""
    chosen = {name: request.GET.get(name, "")[:100].replace("\0", "") for name in FILTERS}
    query = urlencode({name: value for name, value in chosen.items() if value})
    before = request.GET.get("before", "")
    rows = Event.objects.filter(**{name: value for name, value in chosen.items() if value})
    cluster = visit.state().cluster
    words = "snakepit events --all-nodes" if cluster else "snakepit events"
    context: Context = {
        "chosen": chosen, "query": query, "kinds": [str(kind) for kind in Kind], "levels": LEVELS,
        "pools": [pool.name for pool in (cluster or visit.state()).pools],
        "nodes": [node.name for node in cluster.nodes] if cluster else [],
        "snippets": [*rest(request, "GET", f"events?{query}" if query else "events"), shell(words)],
    }  # fmt: skip
    if before or not visit.state().shown:
        context |= _older(rows, before)
    else:
        context["older"] = (rows.order_by("-pk").values_list("pk", flat=True).first() or 0) + 1
    return show(request, visit, "snakepit/events.html", context)


@region("events", "snakepit/_live_events.html")
def newest(state: DashboardState, query: str) -> Context:
    chosen = dict(parse_qsl(query))
    found = [
        event for event in state.events if all(getattr(event, name, None) == value for name, value in chosen.items())
    ]
    return {"events": found[:PAGE]}


def _older(rows: QuerySet[Event], before: str) -> dict[str, Any]:
    if before.isdecimal() and len(before) < 19:
        rows = rows.filter(pk__lt=int(before))
    found = list(rows.order_by("-pk")[: PAGE + 1])
    # By their number, which each broker takes a few seconds after the event; then by time, for those of several nodes.
    rows_shown = sorted(found[:PAGE], key=lambda row: (row.at, row.pk), reverse=True)
    return {"rows": rows_shown, "older": found[PAGE - 1].pk if len(found) > PAGE else None}

"""The hosts with a broker: this web server's own as it says itself, all of them as they last wrote."""

from __future__ import annotations

from datetime import datetime

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from pools.dashboard.board import Facts
from pools.dashboard.copies import rest, shell
from pools.dashboard.page import Visit, page, show
from pools.dashboard.region import Context, region
from pools.dashboard.rows import SILENT
from pools.models import Node


@page("nodes")
def nodes(request: HttpRequest, visit: Visit) -> HttpResponse:
    now = timezone.now()
    rows = [
        {"node": node, "state": "stopped" if node.stopped else "silent" if _silent(node, now) else "live"}
        for node in Node.objects.order_by("name")[:200]
    ]
    copies = [*rest(request, "GET", "nodes"), shell("snakepit status")]
    return show(request, visit, "snakepit/nodes.html", {"rows": rows, "copies": copies})


def _silent(node: Node, now: datetime) -> bool:
    return (now - node.seen_at).total_seconds() > SILENT


@region("node", "snakepit/_node.html")
def standing(facts: Facts, _: str) -> Context:
    return {
        "node": facts.node,
        "pools": len(facts.pools),
        "workers": len(facts.workers),
        "memory_mb": sum(pool["memory_mb"] for pool in facts.pools),
    }

"""The nodes: the one beside this web server from its broker, all nodes from their last row."""

from __future__ import annotations

from datetime import timedelta

from django.http import HttpRequest, HttpResponse

from snakepit.pools.client.drain_status import drain_status
from snakepit.pools.dashboard.limits import use_of_limits
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.region import Context, region
from snakepit.pools.dashboard.snippets import rest, shell
from snakepit.pools.dashboard.state import DashboardState
from snakepit.pools.dashboard.stored_state import SILENT
from snakepit.pools.models import Node
from snakepit.pools.models.moments import utc_now


@page("nodes")
def nodes(request: HttpRequest, visit: Visit) -> HttpResponse:
    now, found = utc_now(), Node.objects.with_silence().order_by("name")[:200]
    rows = [{"node": node, "state": _state(node, node.silence), "seen": now - node.silence} for node in found]
    snippets = [*rest(request, "GET", "nodes"), shell("snakepit status")]
    return show(request, visit, "snakepit/nodes.html", {"rows": rows, "snippets": snippets})


def _state(node: Node, silence: timedelta) -> str:
    if node.stopped:
        return "stopped"
    if silence > SILENT:
        return "silent"
    return "draining" if node.draining else "live"


@region("node", "snakepit/_node.html")
def overview(state: DashboardState, _: str) -> Context:
    return {
        "node": state.node,
        "drain": drain_status(state.status) if state.status else None,
        "pools": len(state.pools),
        "workers": len(state.workers),
        "memory_mb": sum(pool.memory_mb for pool in state.pools),
    }


region("limits", "snakepit/_limits.html")(use_of_limits)

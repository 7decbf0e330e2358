"""The workers of all nodes in pages, and workers that are gone."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

from django.http import HttpRequest, HttpResponse

from snakepit.pools.client.cluster_status import NodeSummary, WorkerOnNode
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.region import Context, region
from snakepit.pools.dashboard.snippets import rest, shell
from snakepit.pools.dashboard.state import DashboardState
from snakepit.pools.models import Event, Worker

PAGE = 50
ENDED = ("worker.died", "worker.killed", "worker.recycled")
LONGEST_NUMBER = 19  # digits: Python reads no number of 4300, and the database none of 20
STATES = ("starting", "ready", "busy", "draining", "stopping")


@page("workers")
def workers(request: HttpRequest, visit: Visit) -> HttpResponse:
    """`?pool=&node=&state=&q=&page=`; `state=gone` lists the rows of ended workers."""
    # PostgreSQL refuses a query with a NUL.
    chosen = {name: request.GET.get(name, "")[:200].replace("\0", "") for name in ("pool", "node", "state", "q")}
    cluster = visit.state().cluster
    several = [*rest(request, "GET", "status?node=all"), shell("snakepit status --all-nodes")]
    alone = [*rest(request, "GET", "workers"), shell("snakepit status")]
    context: Context = {
        "chosen": chosen,
        "pools": [pool.name for pool in (cluster or visit.state()).pools],
        "nodes": [node.name for node in cluster.nodes] if cluster else [],
        "states": (*STATES, "gone"),
        "snippets": several if cluster else alone,
    }
    if chosen["state"] == "gone":
        return show(
            request, visit, "snakepit/workers.html", {**context, **_gone(chosen, request.GET.get("before", ""))}
        )
    query = {**{name: value for name, value in chosen.items() if value}, "page": request.GET.get("page", "1")}
    return show(request, visit, "snakepit/workers.html", {**context, "topic": urlencode(query)})


@region("workers", "snakepit/_workers.html")
def table(state: DashboardState, query: str) -> Context:
    chosen = dict(parse_qsl(query))
    found = [one for one in state.all_workers if _fits(one, chosen)]
    last = max(1, -(-len(found) // PAGE))
    wanted = chosen.get("page", "1")
    number = min(last, max(1, int(wanted))) if wanted.isdecimal() and len(wanted) < LONGEST_NUMBER else 1
    shown = found[(number - 1) * PAGE : number * PAGE]
    turn = {name: value for name, value in chosen.items() if name != "page"}
    return {
        "workers": shown,
        "cluster": state.cluster, "away": _away(state, chosen),
        "count": len(found), "all": len(state.all_workers),
        "page": number, "last": last, "first": (number - 1) * PAGE + 1,
        "before": urlencode({**turn, "page": number - 1}), "after": urlencode({**turn, "page": number + 1}),
    }  # fmt: skip


def _away(state: DashboardState, chosen: dict[str, str]) -> list[NodeSummary]:
    """The nodes whose workers are missing, because they do not answer."""
    away = state.cluster.away if state.cluster else ()
    return [node for node in away if chosen.get("node", "") in ("", node.name)]


def _fits(one: WorkerOnNode, chosen: dict[str, str]) -> bool:
    worker, state = one.worker, chosen.get("state", "")
    if state and worker.activity != state:
        return False
    if chosen.get("pool", "") not in ("", worker.pool) or chosen.get("node", "") not in ("", one.node):
        return False
    words = chosen.get("q", "").lower()
    return words in f"{worker.id} {worker.pid} {worker.reason}".lower()


def _gone(chosen: dict[str, str], before: str) -> Context:
    rows = Worker.objects.filter(state="gone").select_related("node").order_by("-pk")
    if chosen["pool"]:
        rows = rows.filter(pool=chosen["pool"])
    if chosen["node"]:
        rows = rows.filter(node__name=chosen["node"])
    if chosen["q"]:
        rows = rows.filter(worker_id__icontains=chosen["q"])
    if before.isdecimal() and len(before) < LONGEST_NUMBER:
        rows = rows.filter(pk__lt=int(before))
    found = list(rows[: PAGE + 1])
    # The row of a worker that died has no reason: nothing had decided that it should end.
    ends = Event.objects.filter(worker__in=[row.worker_id for row in found], kind__in=ENDED).order_by("pk")
    why = dict(ends.values_list("worker", "message"))
    return {
        "gone": [(row, why.get(row.worker_id) or row.reason) for row in found[:PAGE]],
        "older": found[PAGE - 1].pk if len(found) > PAGE else None,
    }

"""Observed state: workers, events and nodes from rows, and the status of the broker now."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router
from ninja.params import functions

from snakepit.pools.adapters.network.client_certificate import metrics_text
from snakepit.pools.api.auth import Caller, caller
from snakepit.pools.api.bad_rows import shown
from snakepit.pools.api.calls import json_response
from snakepit.pools.api.nodes import ALL, NODE, clean, status_of_all, status_of_node, visible
from snakepit.pools.api.pages import page
from snakepit.pools.api.schemas import (
    AuditFilter,
    AuditOut,
    AuditPage,
    EventFilter,
    EventOut,
    EventPage,
    Failure,
    NodeList,
    NodeOut,
    WorkerFilter,
    WorkerOut,
    WorkerPage,
    answers,
)
from snakepit.pools.api.status_schema import ClusterStatusOut, StatusOut
from snakepit.pools.broker.errors import BadRequest, PermissionDenied, WorkerUnknown
from snakepit.pools.broker.status import as_json
from snakepit.pools.client import shared
from snakepit.pools.jobs import gauges
from snakepit.pools.models import Audit, Event, Node, Worker
from snakepit.pools.models.observed import WORKER_STATES
from snakepit.pools.operations import all_nodes
from snakepit.pools.web.last_status import PATIENCE, in_time, last_status

router = Router(tags=["observed"])
REFUSED = frozenset({400, 401, 403, 404, 503})
OF_NODE = functions.Query("", max_length=200, description="Name of a node; empty: the one of this host.")


@router.get("/workers", response={200: WorkerPage, REFUSED: Failure}, operation_id="list_workers", summary="Workers")
async def list_workers(request: HttpRequest, filters: Query[WorkerFilter]) -> HttpResponse:
    """Newest first, with ended workers; `state` and `pool` filter."""
    identity = caller(request)
    identity.check("view_worker", filters.pool)
    if filters.state and filters.state not in WORKER_STATES:
        raise BadRequest(f"state: {filters.state!r} is not one of {', '.join(WORKER_STATES)}")
    rows = _of_pools(Worker.objects.select_related("node"), identity, filters.pool)
    if filters.state:
        rows = rows.filter(state=filters.state)
    found, after = await sync_to_async(page)(rows, filters.limit, filters.cursor)
    workers, bad = shown(found, WorkerOut.from_orm)
    return json_response({"workers": workers, "bad": bad, "next": after})


@router.get(
    "/workers/{worker}",
    response={200: WorkerOut, REFUSED: Failure},
    operation_id="get_worker",
    summary="One worker",
)
async def get_worker(request: HttpRequest, worker: str) -> HttpResponse:
    identity = caller(request)
    identity.check("view_worker")
    rows = Worker.objects.select_related("node").filter(worker_id=worker).order_by("-pk")
    row = await rows.afirst() if "\0" not in worker else None
    if row is None:
        raise WorkerUnknown(f"No worker has the id {worker!r}.", details={"worker": worker})
    identity.check("view_worker", row.pool)
    return json_response(WorkerOut.from_orm(row).model_dump(mode="json"))


@router.get("/events", response={200: EventPage, REFUSED: Failure}, operation_id="list_events", summary="Events")
async def list_events(request: HttpRequest, filters: Query[EventFilter]) -> HttpResponse:
    """Events of all nodes, newest first, with their node, reasons and numbers.

    Pages follow the order in which the brokers wrote them, within seconds of the event; a page is in order of time.
    """
    identity = caller(request)
    identity.check("view_event", filters.pool)
    rows = _of_pools(Event.objects.all(), identity, filters.pool)
    given = {"node": filters.node, "worker": filters.worker, "kind": filters.kind}
    rows = rows.filter(**{name: clean(name, value) for name, value in given.items() if value})
    found, after = await sync_to_async(page)(rows, filters.limit, filters.cursor)
    found.sort(key=lambda row: (row.at, row.pk), reverse=True)  # brokers write theirs at different moments
    events, bad = shown(found, EventOut.from_orm)
    return json_response({"events": events, "bad": bad, "next": after})


@router.get("/audit", response={200: AuditPage, REFUSED: Failure}, operation_id="list_audit", summary="Audit")
async def list_audit(request: HttpRequest, filters: Query[AuditFilter]) -> HttpResponse:
    """Orders with actor, time, surface, reason and outcome; newest first."""
    identity = caller(request)
    identity.check("view_audit", filters.pool)
    rows = _of_pools(Audit.objects.all(), identity, filters.pool)
    given = {name: getattr(filters, name) for name in ("actor", "action", "target", "outcome")}
    rows = rows.filter(**{name: clean(name, value) for name, value in given.items() if value})
    found, after = await sync_to_async(page)(rows, filters.limit, filters.cursor)
    rows_shown, bad = shown(found, AuditOut.from_orm)
    return json_response({"audit": rows_shown, "bad": bad, "next": after})


@router.get("/nodes", response={200: NodeList, REFUSED: Failure}, operation_id="list_nodes", summary="Nodes")
async def list_nodes(request: HttpRequest) -> HttpResponse:
    caller(request).check("view_node")
    rows = await sync_to_async(lambda: list(Node.objects.all()))()
    nodes, bad = shown(rows, NodeOut.from_orm)
    return json_response({"nodes": nodes, "bad": bad})


@router.get(
    "/status",
    response={200: StatusOut | ClusterStatusOut, REFUSED: Failure},
    operation_id="status",
    summary="Status now",
)
async def status(request: HttpRequest, node: str = NODE) -> HttpResponse:
    """The status of the broker: node, pools and workers. `snapshot` has its age.

    A broker that does not answer leaves the last status of this web process, with `stale`; without one, 503. With
    `node=NAME`, the status of that node now, or 503. With `node=all`, the merged status of all nodes: one that does
    not answer within a second is there with its reason.
    """
    identity = caller(request)
    identity.check("view_pool")
    if node == ALL:
        return json_response(as_json(await status_of_all(identity)))
    found = await status_of_node(node) if node else await last_status.aask()
    return json_response({**as_json(visible(found.status, identity)), "snapshot": found.plain()})


@router.get(
    "/metrics",
    response={REFUSED: Failure},
    openapi_extra=answers("text/plain"),
    operation_id="metrics",
    summary="Metrics",
)
async def metrics(request: HttpRequest, node: str = OF_NODE) -> HttpResponse:
    """The metrics of one broker and the gauge of jobs, as Prometheus text. Not for keys that may see some pools only.

    Without `node`, of the broker of this host. Each node is scraped for itself, so that Prometheus adds them up.
    """
    identity = caller(request)
    identity.check("view_pool")
    identity.check("view_worker")
    if identity.pools is not None:
        raise PermissionDenied(f"{identity.actor} may see some pools only; metrics are of all")
    with in_time():
        asked = await sync_to_async(all_nodes.named)(shared.client(), clean("node", node)) if node else None
        text = await ((asked and asked.client) or shared.client()).ametrics(timeout=PATIENCE)
    text += await sync_to_async(gauges.text)()
    text += "" if node else metrics_text()  # the clients of this host use the file
    return HttpResponse(text, content_type="text/plain; version=0.0.4; charset=utf-8")


def _of_pools(rows: QuerySet[Any], identity: Caller, pool: str) -> QuerySet[Any]:
    if pool:
        return rows.filter(pool=clean("pool", pool))
    return rows if identity.pools is None else rows.filter(pool__in=identity.pools)

"""Observed state: workers, events and nodes from rows, and the status of the broker now."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from asgiref.sync import sync_to_async
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from snakepit.pools.api.auth import Caller, caller
from snakepit.pools.api.bad_rows import shown
from snakepit.pools.api.calls import json_response
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
from snakepit.pools.api.status_schema import StatusOut
from snakepit.pools.broker.errors import BadRequest, PermissionDenied, WorkerUnknown
from snakepit.pools.broker.status import as_json
from snakepit.pools.client import shared
from snakepit.pools.jobs import gauges
from snakepit.pools.models import Audit, Event, Node, Worker
from snakepit.pools.models.observed import WORKER_STATES
from snakepit.pools.web.last_status import PATIENCE, in_time, last_status

router = Router(tags=["observed"])
REFUSED = frozenset({400, 401, 403, 404, 503})


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
    """Events of the brokers, newest first, with reasons and numbers."""
    identity = caller(request)
    identity.check("view_event", filters.pool)
    rows = _of_pools(Event.objects.all(), identity, filters.pool)
    given = {"worker": filters.worker, "kind": filters.kind}
    rows = rows.filter(**{name: _clean(name, value) for name, value in given.items() if value})
    found, after = await sync_to_async(page)(rows, filters.limit, filters.cursor)
    events, bad = shown(found, EventOut.from_orm)
    return json_response({"events": events, "bad": bad, "next": after})


@router.get("/audit", response={200: AuditPage, REFUSED: Failure}, operation_id="list_audit", summary="Audit")
async def list_audit(request: HttpRequest, filters: Query[AuditFilter]) -> HttpResponse:
    """Who ordered what, when, from where and why, and the outcome; newest first."""
    identity = caller(request)
    identity.check("view_audit", filters.pool)
    rows = _of_pools(Audit.objects.all(), identity, filters.pool)
    given = {name: getattr(filters, name) for name in ("actor", "action", "target", "outcome")}
    rows = rows.filter(**{name: _clean(name, value) for name, value in given.items() if value})
    found, after = await sync_to_async(page)(rows, filters.limit, filters.cursor)
    rows_shown, bad = shown(found, AuditOut.from_orm)
    return json_response({"audit": rows_shown, "bad": bad, "next": after})


@router.get("/nodes", response={200: NodeList, REFUSED: Failure}, operation_id="list_nodes", summary="Nodes")
async def list_nodes(request: HttpRequest) -> HttpResponse:
    caller(request).check("view_node")
    rows = await sync_to_async(lambda: list(Node.objects.all()))()
    nodes, bad = shown(rows, NodeOut.from_orm)
    return json_response({"nodes": nodes, "bad": bad})


@router.get("/status", response={200: StatusOut, REFUSED: Failure}, operation_id="status", summary="Status now")
async def status(request: HttpRequest) -> HttpResponse:
    """The status of the broker: node, pools and workers. `snapshot` has its age.

    A broker that does not answer leaves the last status of this web process, with `stale`; without one, 503.
    """
    identity = caller(request)
    identity.check("view_pool")
    found = await last_status.aask()
    now = found.status
    pools = tuple(pool for pool in now.pools if identity.may_use(pool.name))
    workers = tuple(worker for worker in now.workers if identity.may_use(worker.pool))
    shown = as_json(replace(now, pools=pools, workers=workers))
    return json_response({**shown, "snapshot": found.plain()})


@router.get(
    "/metrics",
    response={REFUSED: Failure},
    openapi_extra=answers("text/plain"),
    operation_id="metrics",
    summary="Metrics",
)
async def metrics(request: HttpRequest) -> HttpResponse:
    """The broker's metrics and the gauge of jobs, as Prometheus text. Not for keys that may see some pools only."""
    identity = caller(request)
    identity.check("view_pool")
    identity.check("view_worker")
    if identity.pools is not None:
        raise PermissionDenied(f"{identity.actor} may see some pools only; metrics are of all")
    with in_time():
        text = await shared.client().ametrics(timeout=PATIENCE)
    text += await sync_to_async(gauges.text)()
    return HttpResponse(text, content_type="text/plain; version=0.0.4; charset=utf-8")


def _of_pools(rows: QuerySet[Any], identity: Caller, pool: str) -> QuerySet[Any]:
    if pool:
        return rows.filter(pool=_clean("pool", pool))
    return rows if identity.pools is None else rows.filter(pool__in=identity.pools)


def _clean(name: str, value: str) -> str:
    """Refuse a NUL: SQLite finds nothing for it, PostgreSQL raises an error."""
    if "\0" in value:
        raise BadRequest(f"{name}: holds the character NUL")
    return value

"""Drain a node, read how far the drain is, and resume the node."""

from __future__ import annotations

from collections.abc import Callable

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from ninja import Router

from snakepit.pools.api.auth import Caller, caller
from snakepit.pools.api.calls import json_response
from snakepit.pools.api.operate import order_from, order_route, permitted, read
from snakepit.pools.api.schemas import DrainStatusOut, Failure, ReasonIn
from snakepit.pools.api.snapshot_schema import SnapshotOut
from snakepit.pools.broker.errors import PermissionDenied
from snakepit.pools.broker.status import as_json
from snakepit.pools.client import shared
from snakepit.pools.client.drain_status import DrainStatus, drain_status
from snakepit.pools.operations import node_drain, orders
from snakepit.pools.web.last_status import PATIENCE, Snapshot, in_time, last_status

router = Router(tags=["observed"])
REFUSED = frozenset({400, 401, 403, 404, 503})


@router.get(
    "/nodes/{node}/drain",
    response={200: DrainStatusOut, REFUSED: Failure},
    operation_id="drain_status",
    summary="Preview or progress of a drain",
)
async def read_drain_status(request: HttpRequest, node: str) -> HttpResponse:
    """Running and waiting calls by pool. Changes nothing. Not for keys that may see some pools only."""
    identity = caller(request)
    identity.check("view_node")
    _all_pools(identity)
    found = await last_status.aask()
    if found.status.node.name == node:
        return _answer(drain_status(found.status), found)
    with in_time():
        return _answer(await sync_to_async(node_drain.preview)(shared.client(), node, PATIENCE))


@order_route(router, "/nodes/{node}/drain", "drain_node", "Take no new calls on a node", ReasonIn, DrainStatusOut)
async def drain(request: HttpRequest, node: str) -> HttpResponse:
    """Running and waiting calls finish and workers stay warm, until a resume or a restart of the broker."""
    return await _order(request, "drain", node, node_drain.drain)


@order_route(router, "/nodes/{node}/resume", "resume_node", "Take calls on a node again", ReasonIn, DrainStatusOut)
async def resume(request: HttpRequest, node: str) -> HttpResponse:
    return await _order(request, "resume", node, node_drain.resume)


async def _order(request: HttpRequest, action: str, node: str, order: Callable[..., DrainStatus]) -> HttpResponse:
    identity = await permitted(request, action, "", node)
    try:
        _all_pools(identity)
    except PermissionDenied as error:
        await sync_to_async(orders.refused)(order_from(identity, ""), action, error, target=node)
        raise
    given = order_from(identity, read(request, ReasonIn).reason)
    return _answer(await sync_to_async(order)(shared.client(), node, given))


def _all_pools(identity: Caller) -> None:
    if identity.pools is not None:
        raise PermissionDenied(f"{identity.actor} may use some pools only; a node has all of them")


def _answer(now: DrainStatus, found: Snapshot | None = None) -> HttpResponse:
    snapshot = SnapshotOut(**found.plain()) if found else None
    return json_response(DrainStatusOut(**as_json(now), snapshot=snapshot).model_dump(mode="json"))

"""Liveness and readiness probes, without authentication."""

from __future__ import annotations

from asgiref.sync import sync_to_async
from django.db import Error, connections
from django.http import HttpRequest, HttpResponse
from ninja import Router

from snakepit.pools import greenlets
from snakepit.pools.api.calls import json_response
from snakepit.pools.api.schemas import Live, Ready
from snakepit.pools.broker.errors import BrokerError, DatabaseUnavailable
from snakepit.pools.client import shared
from snakepit.pools.models import schema
from snakepit.pools.models.hosting import hosted
from snakepit.pools.web import away
from snakepit.pools.web.last_status import ABSENT, last_status

router = Router(tags=["health"], auth=None)


@router.get("/live", response=Live, operation_id="live", summary="Liveness: the web process responds")
async def live(request: HttpRequest) -> HttpResponse:
    return json_response({"live": True})


@router.get("/ready", response={200: Ready, 503: Ready}, operation_id="ready", summary="Readiness: calls can run")
async def ready(request: HttpRequest) -> HttpResponse:
    """200 if database and broker respond, the node is not draining, and each enabled pool of it has a ready worker."""
    if greenlets.is_patched():  # neither the broker nor the database can be asked
        return json_response({"ready": False, "problems": [greenlets.PATCHED]}, status=503)
    problems: list[str] = []
    try:
        wanted = await sync_to_async(_asked_pools)()
    except (Error, DatabaseUnavailable):
        # The error may contain hosts and users, and this response is public.
        problems.append("the database does not respond")
        wanted = []
    try:
        # A probe has a bound of its own, often one second.
        status = await shared.client().astatus(timeout=last_status.patience())
    except BrokerError as error:
        absent = last_status.missed(error).kind == ABSENT
        problems.append("no broker runs here" if absent else "the broker does not respond")
    else:
        last_status.record(status)
        counts = {one.name: one.ready for one in status.pools}
        if status.node.draining:  # load balancers then use another node
            problems.append("the node is draining")
        if empty := sum(not counts.get(name) for name in wanted):  # this response is public: no names
            problems.append(f"{empty} of {len(wanted)} pools {'has' if empty == 1 else 'have'} no ready worker")
    return json_response({"ready": not problems, "problems": problems}, status=503 if problems else 200)


def _asked_pools() -> list[str]:
    with away.asking():
        return _enabled_pools()


def _enabled_pools() -> list[str]:
    connections[schema.alias()].ensure_connection()
    return hosted()

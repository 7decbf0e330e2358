"""Pools: definitions from rows, live state from the broker, and commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from ninja import Router
from pydantic import ValidationError

from snakepit.pools import conf
from snakepit.pools.api.auth import BrowserAuth, Caller, KeyAuth, caller
from snakepit.pools.api.bad_rows import problem_of, shown
from snakepit.pools.api.calls import json_response
from snakepit.pools.api.nodes import ALL, NODE, status_of_all, status_of_node
from snakepit.pools.api.pool_openapi import OpenApiOut, Site, document
from snakepit.pools.api.pool_schemas import PoolAnswer, PoolList, PoolOut
from snakepit.pools.api.schemas import CommandList, Failure
from snakepit.pools.broker.errors import BrokerError, CommandsPending, DefinitionInvalid, PoolUnknown
from snakepit.pools.broker.status import as_json
from snakepit.pools.client import shared
from snakepit.pools.client.cluster_status import ClusterStatus
from snakepit.pools.models import Pool
from snakepit.pools.web.last_status import PATIENCE, Snapshot, in_time, last_status

router = Router(tags=["pools"])
REFUSED = frozenset({400, 401, 403, 404, 503})


@router.get("/pools", response={200: PoolList, REFUSED: Failure}, operation_id="list_pools", summary="List pools")
async def list_pools(request: HttpRequest, node: str = NODE) -> HttpResponse:
    """Every pool that the caller may use, with its definition and its live state.

    `live` is of the node of this host, or of the one that `node` names. With `node=all`, `merged` is of all nodes, and
    `all_nodes` names those that do not answer within a second.
    """
    requester = caller(request)
    requester.check("view_pool")
    rows = await sync_to_async(lambda: [pool for pool in Pool.objects.all() if requester.may_use(pool.name)])()
    found = await _live(node, requester)
    pools, bad = shown(rows, lambda pool: _joined(pool, found))
    return json_response({"pools": pools, "bad": bad, "broker": found.trouble or "reachable", **found.ages()})


@router.get(
    "/pools/{pool}", response={200: PoolAnswer, REFUSED | {422}: Failure}, operation_id="get_pool", summary="One pool"
)
async def get_pool(request: HttpRequest, pool: str, node: str = NODE) -> HttpResponse:
    """As in the list of pools."""
    requester = caller(request)
    requester.check("view_pool", pool)
    row = await Pool.objects.filter(name=pool).afirst() if "\0" not in pool else None
    if row is None:
        raise PoolUnknown(f"No pool is named {pool!r}.", details={"pool": pool})
    found = await _live(node, requester)
    try:
        return json_response({**_joined(row, found).model_dump(mode="json"), **found.ages()})
    except ValidationError as error:
        raise DefinitionInvalid(f"The row of pool {pool!r} cannot be shown: {problem_of(error)}") from None


@router.get(
    "/pools/{pool}/commands",
    response={200: CommandList, REFUSED: Failure},
    operation_id="list_commands",
    summary="A pool's commands, with the schemas of their arguments",
)
async def list_commands(request: HttpRequest, pool: str) -> HttpResponse:
    """Empty while no worker of the pool has reported its commands."""
    caller(request).check("view_pool", pool)
    with in_time():
        commands = await shared.client().acommands(pool, timeout=PATIENCE)
    return json_response({"pool": pool, "commands": as_json(commands)})


@router.get(
    "/pools/{pool}/openapi.json",
    response={200: OpenApiOut, REFUSED | {409}: Failure},
    operation_id="pool_openapi",
    summary="A pool's own OpenAPI document: one operation for each command",
)
async def pool_openapi(request: HttpRequest, pool: str) -> HttpResponse:
    """Generate a client from it. 409 `commands_pending` while no worker of the pool has reported its commands: a
    document without them would make a client without them."""
    caller(request).check("view_pool", pool)
    with in_time():
        commands = await shared.client().acommands(pool, timeout=PATIENCE)
    if not commands:
        message = f"No worker of the pool {pool!r} has reported its commands yet: ask again when one is ready."
        raise CommandsPending(message, details={"pool": pool})
    security = {kind.__name__: kind().openapi_security_schema for kind in (KeyAuth, BrowserAuth)}
    site = Site(request.path.removesuffix("/openapi.json"), conf.current().max_timeout, security)
    return json_response(document(pool, commands, site))


@dataclass(frozen=True, slots=True)
class _Live:
    """What the brokers report about pools."""

    snapshot: Snapshot | None = None  # of one node
    cluster: ClusterStatus | None = None  # of all nodes, where they were asked
    trouble: str = ""  # why the node does not answer now

    def ages(self) -> dict[str, Any]:
        """The age of what is shown: of the one node, or of each."""
        nodes = {} if self.cluster is None else {"all_nodes": as_json(self.cluster.nodes)}
        return {"snapshot": self.snapshot.plain() if self.snapshot else None, **nodes}


async def _live(node: str, requester: Caller) -> _Live:
    """The last status of the node of this host, that of the named node now, or that of all nodes."""
    if node == ALL:
        found = await status_of_all(requester)
        return _Live(cluster=found, trouble="" if len(found.away) < len(found.nodes) else "no node answers")
    if node:
        return _Live(await status_of_node(node))
    try:
        last = await last_status.aask()
    except BrokerError as error:
        return _Live(trouble=error.message)
    return _Live(last, trouble=last.trouble.message if last.trouble else "")


def _joined(pool: Pool, found: _Live) -> PoolOut:
    names = PoolOut.model_fields.keys() - {"live", "merged", "problem"}
    values = {name: getattr(pool, name) for name in names}
    live = found.snapshot.status.pool(pool.name) if found.snapshot else None
    merged = found.cluster.pool(pool.name) if found.cluster else None
    return PoolOut(**values, problem=pool.definition_problem(), live=live, merged=merged)

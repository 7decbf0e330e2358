"""Pools: definitions from rows, live state from the broker, and commands."""

from __future__ import annotations

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from ninja import Router
from pydantic import ValidationError

from snakepit.pools.api.auth import caller
from snakepit.pools.api.bad_rows import problem_of, shown
from snakepit.pools.api.calls import json_response
from snakepit.pools.api.schemas import CommandList, Failure, PoolList, PoolOut
from snakepit.pools.broker.errors import BrokerError, DefinitionInvalid, PoolUnknown
from snakepit.pools.broker.status import PoolStatus, as_json
from snakepit.pools.client import shared
from snakepit.pools.models import Pool
from snakepit.pools.web.errors import seen_from_outside

router = Router(tags=["pools"])
REFUSED = frozenset({400, 401, 403, 404, 503})


@router.get("/pools", response={200: PoolList, REFUSED: Failure}, operation_id="list_pools", summary="List pools")
async def list_pools(request: HttpRequest) -> HttpResponse:
    """Every pool that the caller may use, with its definition and its live state."""
    requester = caller(request)
    requester.check("view_pool")
    rows = await sync_to_async(lambda: [pool for pool in Pool.objects.all() if requester.may_use(pool.name)])()
    live, trouble = await _live()
    pools, bad = shown(rows, lambda pool: _joined(pool, live.get(pool.name)))
    return json_response({"pools": pools, "bad": bad, "broker": trouble or "reachable"})


@router.get(
    "/pools/{pool}", response={200: PoolOut, REFUSED | {422}: Failure}, operation_id="get_pool", summary="One pool"
)
async def get_pool(request: HttpRequest, pool: str) -> HttpResponse:
    caller(request).check("view_pool", pool)
    row = await Pool.objects.filter(name=pool).afirst() if "\0" not in pool else None
    if row is None:
        raise PoolUnknown(f"No pool is named {pool!r}.", details={"pool": pool})
    live, _ = await _live(pool)
    try:
        return json_response(_joined(row, live.get(pool)).model_dump(mode="json"))
    except ValidationError as error:
        raise DefinitionInvalid(f"The row of pool {pool!r} cannot be shown: {problem_of(error)}") from None


@router.get(
    "/pools/{pool}/commands",
    response={200: CommandList, REFUSED: Failure},
    operation_id="list_commands",
    summary="A pool's commands, with the schemas of their arguments",
)
async def list_commands(request: HttpRequest, pool: str) -> HttpResponse:
    caller(request).check("view_pool", pool)
    commands = await shared.client().acommands(pool)
    return json_response({"pool": pool, "commands": as_json(commands)})


async def _live(pool: str = "") -> tuple[dict[str, PoolStatus], str]:
    """The broker's state of its pools, and the error if the broker is unreachable."""
    try:
        status = await shared.client().astatus(pool)
    except BrokerError as error:
        return {}, seen_from_outside(error).message
    return {one.name: one for one in status.pools}, ""


def _joined(pool: Pool, live: PoolStatus | None) -> PoolOut:
    names = (name for name in PoolOut.model_fields if name != "live")
    return PoolOut(**{name: getattr(pool, name) for name in names}, live=as_json(live))

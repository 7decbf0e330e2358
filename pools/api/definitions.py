"""Add, change and delete pools, with the scope `configure`; checked as in the admin and audited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from pydantic import TypeAdapter

from snakepit.pools.api import pools
from snakepit.pools.api.auth import Caller
from snakepit.pools.api.body import read_object
from snakepit.pools.api.calls import json_response
from snakepit.pools.api.operate import checked, order_from, permitted, read
from snakepit.pools.api.schemas import ChangeOut, Failure, ReasonIn
from snakepit.pools.broker.spec import FIELDS, PoolSpec
from snakepit.pools.client import shared
from snakepit.pools.operations import pool_rows
from snakepit.pools.operations.orders import Change, Order

router = pools.router  # of the same paths: with a second router, their other methods would be 405
REFUSED = frozenset({400, 401, 403, 404, 409, 413, 422, 503})
REASON = ReasonIn.model_json_schema()["properties"]["reason"]


def _body(required: tuple[str, ...], left_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The schema of a body: the fields of a definition, with ranges and help, and the reason."""
    found = TypeAdapter(PoolSpec).json_schema()
    properties: dict[str, Any] = {}
    for name, one in found["properties"].items():
        facts = FIELDS[name].metadata
        ranges = {"minimum": facts["low"], "maximum": facts["high"]} if facts.get("low") is not None else {}
        kinds = [form | ranges if form.get("type") in ("integer", "number") else form for form in one.get("anyOf", ())]
        shown = {**one, **(ranges if not kinds else {"anyOf": kinds}), "description": facts["help"]}
        properties[name] = {word: value for word, value in shown.items() if word != "default"}
    kept = {name: one for name, one in properties.items() if name not in left_out} | {"reason": REASON}
    schema = {"type": "object", "properties": kept, "additionalProperties": False, "required": list(required)}
    return {"requestBody": {"content": {"application/json": {"schema": _inlined(schema, found.get("$defs", {}))}}}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return definitions[schema["$ref"].rpartition("/")[2]] | {k: v for k, v in schema.items() if k != "$ref"}
    return {word: _inlined(value, definitions) for word, value in schema.items()}


@router.post(
    "/pools",
    response={201: ChangeOut, REFUSED: Failure},
    operation_id="add_pool",
    summary="Add a pool",
    openapi_extra=_body(("name", "adapter")),
)
async def add_pool(request: HttpRequest) -> HttpResponse:
    """Fields that the body leaves out have their defaults. The adapter is a key of SNAKEPIT["ADAPTERS"]."""
    requester = await permitted(request, "add_pool", "")
    values, order = _definition(request, requester)
    name = values.get("name")
    await permitted(request, "add_pool", name if isinstance(name, str) else "")
    response = await _answer(pool_rows.add_pool, values, order, status=201)
    response["Location"] = f"{request.path}/{name}"
    return response


@router.patch(
    "/pools/{pool}",
    response={200: ChangeOut, REFUSED: Failure},
    operation_id="change_pool",
    summary="Change a pool's definition",
    openapi_extra=_body((), left_out=("name",)),
)
async def change_pool(request: HttpRequest, pool: str) -> HttpResponse:
    """Only the given fields change. 409 `managed_by_settings`: the settings define this pool."""
    requester = await permitted(request, "change_pool", pool)
    values, order = _definition(request, requester)
    return await _answer(pool_rows.change_pool, pool, values, order)


@router.delete(
    "/pools/{pool}",
    response={200: ChangeOut, REFUSED: Failure},
    operation_id="delete_pool",
    summary="Delete a pool",
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": ReasonIn.model_json_schema()}}}},
)
async def delete_pool(request: HttpRequest, pool: str) -> HttpResponse:
    """Its workers end; its events and jobs stay. 409 `managed_by_settings`: the settings define this pool."""
    requester = await permitted(request, "delete_pool", pool)
    return await _answer(pool_rows.delete_pool, pool, order_from(requester, read(request, ReasonIn).reason))


def _definition(request: HttpRequest, requester: Caller) -> tuple[dict[str, Any], Order]:
    values = read_object(request)
    reason = checked(ReasonIn, {"reason": values.pop("reason", "")}).reason
    return values, order_from(requester, reason)


async def _answer(change: Callable[..., Change], *given: Any, status: int = 200) -> HttpResponse:
    done = await sync_to_async(change)(shared.client(), *given)
    return json_response(ChangeOut.from_orm(done).model_dump(mode="json"), status=status)

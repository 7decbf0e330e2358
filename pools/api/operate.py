"""What operators order: recycle with its preview, scale, pause, resume, stacks. Who and why goes with each order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Schema
from pydantic import ValidationError

from pools import operations
from pools.api import door
from pools.api.auth import Caller, caller
from pools.api.body import read_object
from pools.api.calls import json_response
from pools.api.schemas import ChangeOut, DumpOut, Failure, KillOut, PlanOut, ReasonIn, RecycleIn, RecycleOut, ScaleIn
from pools.broker.errors import BadRequest, WorkerUnknown
from pools.diagnostics import applying
from pools.operations import Change, Order

router = Router(tags=["pools"])
REFUSED = frozenset({400, 401, 403, 404, 503})
ROW_REFUSED = REFUSED | {422}
Body = TypeVar("Body", bound=Schema)


def takes(body: type[Schema]) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"schema": body.model_json_schema()}}}}


@router.post(
    "/pools/{pool}/recycle",
    response={200: RecycleOut, REFUSED: Failure},
    operation_id="recycle",
    summary="Replace workers, successor first",
    openapi_extra=takes(RecycleIn),
)
async def recycle(request: HttpRequest, pool: str) -> HttpResponse:
    who = _operator(request, "recycle", pool)
    wanted = read(request, RecycleIn)
    given = door.broker(), pool, wanted.worker, order_from(who, wanted.reason)
    return json_response({"planned": await sync_to_async(operations.recycle)(*given)})


@router.get(
    "/pools/{pool}/plan",
    response={200: PlanOut, REFUSED: Failure},
    operation_id="plan",
    summary="What a recycle would do",
)
async def plan(request: HttpRequest, pool: str, worker: str = Query("", max_length=100)) -> HttpResponse:
    """Which workers a recycle ordered now would replace, in which order, and what age and count will. Does nothing."""
    who = caller(request)
    who.check("view_pool", pool)
    who.check("view_worker", pool)
    return json_response(PlanOut(**await door.broker().aplan(pool, worker=worker)).model_dump(mode="json"))


@router.post(
    "/pools/{pool}/scale",
    response={200: ChangeOut, ROW_REFUSED: Failure},
    operation_id="scale",
    summary="Change the number of workers",
    openapi_extra=takes(ScaleIn),
)
async def scale(request: HttpRequest, pool: str) -> HttpResponse:
    who = _operator(request, "scale", pool)
    wanted = read(request, ScaleIn)
    return await _change(operations.scale, pool, wanted.size, order_from(who, wanted.reason))


@router.post(
    "/pools/{pool}/pause",
    response={200: ChangeOut, ROW_REFUSED: Failure},
    operation_id="pause",
    summary="Refuse new calls, keep the workers warm",
    openapi_extra=takes(ReasonIn),
)
async def pause(request: HttpRequest, pool: str) -> HttpResponse:
    who = _operator(request, "pause", pool)
    return await _change(operations.pause, pool, order_from(who, read(request, ReasonIn).reason))


@router.post(
    "/pools/{pool}/resume",
    response={200: ChangeOut, ROW_REFUSED: Failure},
    operation_id="resume",
    summary="Take calls again",
    openapi_extra=takes(ReasonIn),
)
async def resume(request: HttpRequest, pool: str) -> HttpResponse:
    who = _operator(request, "resume", pool)
    return await _change(operations.resume, pool, order_from(who, read(request, ReasonIn).reason))


@router.post(
    "/workers/{worker}/kill",
    response={200: KillOut, REFUSED: Failure},
    operation_id="kill",
    summary="End a worker's process now",
    openapi_extra=takes(ReasonIn),
    tags=["observed"],
)
async def kill(request: HttpRequest, worker: str) -> HttpResponse:
    """Its calls fail, or run again where their command is idempotent; a new worker takes its place."""
    who = _operator(request, "kill", "")
    reason = read(request, ReasonIn).reason
    pool = await _pool_of(worker)
    who.allow("kill", pool)
    await sync_to_async(operations.kill)(door.broker(), pool, worker, order_from(who, reason))
    return json_response({"worker": worker, "pool": pool})


@router.post(
    "/workers/{worker}/dump",
    response={200: DumpOut, REFUSED: Failure},
    operation_id="dump",
    summary="Where a worker's threads are",
    openapi_extra=takes(ReasonIn),
    tags=["observed"],
)
async def dump(request: HttpRequest, worker: str) -> HttpResponse:
    """The Python stacks of all threads of a live worker, also while C code in it holds the GIL. Told as an event."""
    who = _operator(request, "dump", "")
    reason = read(request, ReasonIn).reason
    pool = await _pool_of(worker)
    who.allow("dump", pool)
    found = await sync_to_async(operations.dump)(door.broker(), pool, worker, order_from(who, reason))
    return json_response(DumpOut(**found).model_dump(mode="json"))


async def _pool_of(worker: str) -> str:
    living = (await door.broker().astatus())["workers"]
    pool = next((str(one["pool"]) for one in living if one["id"] == worker), "")
    if not pool:
        raise WorkerUnknown(f"No worker {worker!r} lives on this node.", details={"worker": worker})
    return pool


@router.post(
    "/diagnostics/recommendations/{advice}/apply",
    response={200: ChangeOut, ROW_REFUSED | {409}: Failure},
    operation_id="apply_recommendation",
    summary="Follow a recommendation",
    openapi_extra=takes(ReasonIn),
    tags=["diagnostics"],
)
async def apply_recommendation(request: HttpRequest, advice: str) -> HttpResponse:
    """Judged once more: 409 `not_advised` if it does not hold now; `managed_by_settings` has the line to write."""
    who = _operator(request, "apply", advice.partition(":")[2])
    return await _change(applying.apply, advice, order_from(who, read(request, ReasonIn).reason))


def _operator(request: HttpRequest, action: str, pool: str) -> Caller:
    who = caller(request)
    who.allow(action, pool)
    return who


def order_from(who: Caller, reason: str) -> Order:
    return Order(who.actor, reason, who.owner, "rest", who.address)


async def _change(change: Callable[..., Change], *given: Any) -> HttpResponse:
    """In a thread: the row first, then the broker."""
    done = await sync_to_async(change)(door.broker(), *given)
    return json_response(ChangeOut.from_orm(done).model_dump(mode="json"))


def read(request: HttpRequest, body: type[Body]) -> Body:
    """By hand and not as ninja's parameter: the body keeps the same limits as a call's."""
    try:
        return body.model_validate(read_object(request))
    except ValidationError as error:
        fields = {".".join(map(str, one["loc"])): one["msg"] for one in error.errors()}
        message = "; ".join(f"{name}: {why}" for name, why in fields.items())
        raise BadRequest(message, details={"fields": fields}) from None

"""Orders of operators: recycle with its preview, scale, pause, resume, kill, stacks; each with actor and reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from ninja import Router, Schema
from ninja.params import functions
from pydantic import ValidationError

from snakepit.pools.api.auth import Caller, caller
from snakepit.pools.api.body import read_object
from snakepit.pools.api.calls import json_response
from snakepit.pools.api.pool_schemas import QueueOut
from snakepit.pools.api.recycle_schema import RecycleIn, RecycleOut
from snakepit.pools.api.schemas import (
    ChangeOut,
    DumpOut,
    Failure,
    KillOut,
    PlanOut,
    ReasonIn,
    ScaleIn,
)
from snakepit.pools.broker.errors import BadRequest, PermissionDenied
from snakepit.pools.broker.status import as_json
from snakepit.pools.client import shared
from snakepit.pools.diagnostics import applying
from snakepit.pools.operations import all_nodes, orders, pool_nodes, queue_orders
from snakepit.pools.operations.orders import Change, Order
from snakepit.pools.web import scale as web_scale
from snakepit.pools.web.last_status import PATIENCE, in_time

router = Router(tags=["pools"])
REFUSED = frozenset({400, 401, 403, 404, 503})
ROW_REFUSED = REFUSED | {422}
NODE = functions.Query("", max_length=200, pattern=r"^[^\x00]*$", description="Name of a node.")
Body = TypeVar("Body", bound=Schema)
View = TypeVar("View", bound=Callable[..., Any])


def order_route(
    router: Router, path: str, name: str, summary: str, takes: type[Schema], gives: type[Schema], *,
    refused: frozenset[int] = REFUSED, **more: Any,
) -> Callable[[View], View]:  # fmt: skip
    """A route for an operator's order. Its body is read by hand, so its schema is declared here."""
    body = {"requestBody": {"content": {"application/json": {"schema": takes.model_json_schema()}}}}
    answers = {200: gives, refused: Failure}
    return router.post(path, response=answers, operation_id=name, summary=summary, openapi_extra=body, **more)


@order_route(router, "/pools/{pool}/recycle", "recycle", "Replace workers, successor first", RecycleIn, RecycleOut)
async def recycle(request: HttpRequest, pool: str) -> HttpResponse:
    """On every node that hosts the pool, or on the one that `node` names. Each node has its answer."""
    identity = await permitted(request, "recycle", pool)
    wanted = read(request, RecycleIn)
    given = shared.client(), pool, wanted.worker, order_from(identity, wanted.reason), wanted.node
    return json_response(as_json(await sync_to_async(pool_nodes.recycle)(*given)))


@router.get(
    "/pools/{pool}/plan",
    response={200: PlanOut, REFUSED: Failure},
    operation_id="plan",
    summary="Preview of a recycle",
)
async def plan(
    request: HttpRequest, pool: str, worker: str = functions.Query("", max_length=100), node: str = NODE
) -> HttpResponse:
    """The workers that a recycle would replace on one node, in order, and those that age and count will.

    Changes nothing. Without `node`, it is the node of this host, or one that has the pool.
    """
    identity = caller(request)
    identity.check("view_pool", pool)
    identity.check("view_worker", pool)
    with in_time():
        at = await sync_to_async(all_nodes.named)(shared.client(), node) if node else None
        found = await ((at and at.client) or shared.client()).aplan(pool, worker=worker, timeout=PATIENCE)
    return json_response(PlanOut(**as_json(found)).model_dump(mode="json"))


@order_route(
    router, "/pools/{pool}/scale", "scale", "Change the number of workers", ScaleIn, ChangeOut, refused=ROW_REFUSED
)
async def scale(request: HttpRequest, pool: str) -> HttpResponse:
    """Without a question. `note` has a warning if the memory of the broker's machine does not hold the workers."""
    identity = await permitted(request, "scale", pool)
    wanted = read(request, ScaleIn)
    done = await sync_to_async(web_scale.scale)(pool, wanted.size, order_from(identity, wanted.reason))
    return json_response(ChangeOut.from_orm(done).model_dump(mode="json"))


@order_route(
    router,
    "/pools/{pool}/pause",
    "pause",
    "Refuse new calls, keep the workers warm",
    ReasonIn,
    ChangeOut,
    refused=ROW_REFUSED,
)
async def pause(request: HttpRequest, pool: str) -> HttpResponse:
    return await _change(orders.pause, pool, await _order_for(request, "pause", pool))


@order_route(router, "/pools/{pool}/resume", "resume", "Take calls again", ReasonIn, ChangeOut, refused=ROW_REFUSED)
async def resume(request: HttpRequest, pool: str) -> HttpResponse:
    return await _change(orders.resume, pool, await _order_for(request, "resume", pool))


@order_route(router, "/pools/{pool}/queue/pause", "pause_queue", "Let a pool's jobs wait", ReasonIn, QueueOut)
async def pause_queue(request: HttpRequest, pool: str) -> HttpResponse:
    """Claim none of its jobs. Jobs that run end, calls go on, and jobs can be submitted."""
    return await _queue(request, pool, "pause_queue", queue_orders.pause_queue)


@order_route(router, "/pools/{pool}/queue/resume", "resume_queue", "Run a pool's jobs again", ReasonIn, QueueOut)
async def resume_queue(request: HttpRequest, pool: str) -> HttpResponse:
    return await _queue(request, pool, "resume_queue", queue_orders.resume_queue)


async def _queue(request: HttpRequest, pool: str, action: str, work: Callable[[str, Order], bool]) -> HttpResponse:
    changed = await sync_to_async(work)(pool, await _order_for(request, action, pool))
    return json_response({"pool": pool, "queue_paused": action == "pause_queue", "changed": changed})


@order_route(
    router, "/workers/{worker}/kill", "kill", "End a worker's process now", ReasonIn, KillOut, tags=["observed"]
)
async def kill(request: HttpRequest, worker: str) -> HttpResponse:
    """Its calls fail, or run again where their command is idempotent; a new worker takes its place."""
    pool, order = await _order_for_worker(request, "kill", worker)
    await sync_to_async(pool_nodes.kill)(shared.client(), pool, worker, order)
    return json_response({"worker": worker, "pool": pool})


@order_route(
    router,
    "/workers/{worker}/dump",
    "dump",
    "Stacks of a worker's threads",
    ReasonIn,
    DumpOut,
    refused=REFUSED | {409},
    tags=["observed"],
)
async def dump(request: HttpRequest, worker: str) -> HttpResponse:
    """The Python stacks of all threads of a live worker, also while C code holds the GIL. Recorded as an event."""
    pool, order = await _order_for_worker(request, "dump", worker)
    found = await sync_to_async(pool_nodes.dump)(shared.client(), pool, worker, order)
    return json_response(DumpOut(**as_json(found)).model_dump(mode="json"))


@order_route(
    router,
    "/diagnostics/recommendations/{advice}/apply",
    "apply_recommendation",
    "Follow a recommendation",
    ReasonIn,
    ChangeOut,
    refused=ROW_REFUSED | {409},
    tags=["diagnostics"],
)
async def apply_recommendation(request: HttpRequest, advice: str) -> HttpResponse:
    """Checked again: 409 `not_advised` if it no longer holds; `managed_by_settings` has the line to write."""
    return await _change(applying.apply, advice, await _order_for(request, "apply", advice.partition(":")[2]))


async def permitted(request: HttpRequest, action: str, pool: str, target: str = "") -> Caller:
    """The caller, if the caller may order this. Raises PermissionDenied, and records it in the audit."""
    identity = caller(request)
    try:
        identity.allow(action, pool)
    except PermissionDenied as error:
        await sync_to_async(orders.refused)(order_from(identity, ""), action, error, pool, target)
        raise
    return identity


async def _order_for(request: HttpRequest, action: str, pool: str) -> Order:
    """An order whose body has only a reason."""
    identity = await permitted(request, action, pool)
    return order_from(identity, read(request, ReasonIn).reason)


async def _order_for_worker(request: HttpRequest, action: str, worker: str) -> tuple[str, Order]:
    """The same for a worker, with its pool. A caller without the right for any pool cannot probe for workers."""
    identity = await permitted(request, action, "", worker)
    reason = read(request, ReasonIn).reason
    with in_time():
        pool = await sync_to_async(pool_nodes.pool_of_worker)(shared.client(), worker, PATIENCE)
    await permitted(request, action, pool, worker)
    return pool, order_from(identity, reason)


def order_from(identity: Caller, reason: str) -> Order:
    return Order(identity.actor, reason, identity.owner, "rest", identity.address)


async def _change(change: Callable[..., Change], *given: Any) -> HttpResponse:
    """Change the row, then the broker, in a thread."""
    done = await sync_to_async(change)(shared.client(), *given)
    return json_response(ChangeOut.from_orm(done).model_dump(mode="json"))


def read(request: HttpRequest, body: type[Body]) -> Body:
    """Read the body by hand, not as a ninja parameter, so that it has the limits of a call's body."""
    return checked(body, read_object(request))


def checked(body: type[Body], given: dict[str, Any]) -> Body:
    """The body, if it is valid. Raises BadRequest, which names the fields."""
    try:
        return body.model_validate(given)
    except ValidationError as error:
        fields = {".".join(map(str, one["loc"])): one["msg"] for one in error.errors()}
        message = "; ".join(f"{name}: {why}" for name, why in fields.items())
        raise BadRequest(message, details={"fields": fields}) from None

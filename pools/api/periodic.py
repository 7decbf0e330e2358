"""Periodic jobs: list, show, add, change, delete, run now, pause and resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from ninja import Field, Router, Schema

from snakepit.pools.api.auth import Caller, caller
from snakepit.pools.api.calls import json_response
from snakepit.pools.api.job_schemas import JobOut, Number, Whole
from snakepit.pools.api.jobs import shown_to
from snakepit.pools.api.json_value import JsonValue
from snakepit.pools.api.operate import order_from, order_route, read
from snakepit.pools.api.schemas import Failure, ReasonIn
from snakepit.pools.broker.errors import PeriodicUnknown, PermissionDenied
from snakepit.pools.models import PeriodicJob
from snakepit.pools.operations import orders, periodic_orders
from snakepit.pools.operations.orders import Order

router = Router(tags=["periodic jobs"])
REFUSED = frozenset({400, 401, 403, 404, 503})
TIMES = ("next_run", "last_run", "created_at", "updated_at")


class PeriodicOptions(Schema):
    """A schedule, and the job that it submits. Durations are seconds."""

    model_config = {"extra": "forbid"}

    pool: str = Field(max_length=48)
    command: str = Field(max_length=200)
    arguments: dict[str, Any] = Field(default_factory=dict)
    cron: str = Field(default="", max_length=200, description="Minute, hour, day of month, month, day of week.")
    time_zone: str = Field(default="UTC", max_length=64, description="Zone of `cron`, such as Europe/Berlin.")
    interval: Whole | None = Field(default=None, description="Instead of `cron`. Whole intervals since 1970.")
    enabled: bool = True
    misfire: str = Field(default="skip", json_schema_extra={"enum": ["skip", "once"]})
    priority: Whole = Field(default=0, json_schema_extra={"minimum": -100, "maximum": 100})
    timeout: Number | None = None
    expires_after: Whole | None = Field(default=None, json_schema_extra={"minimum": 0})
    max_attempts: Whole | None = None
    backoff: Number | None = None
    retry: str = Field(default="lost", json_schema_extra={"enum": ["never", "safe", "lost", "always"]})
    tags: list[str] = Field(default_factory=list)
    retention: Whole | None = None


class PeriodicIn(PeriodicOptions):
    """A new periodic job. Its jobs belong to the caller."""

    name: str = Field(max_length=40)


class PeriodicOut(PeriodicIn):
    arguments: dict[str, JsonValue] | None = None  # type: ignore[assignment]
    owner: str
    payload_hidden: bool = Field(description="The caller may not see the arguments.")
    next_run: datetime | None = Field(description="Null while it is paused.")
    next_runs: list[datetime]
    last_run: datetime | None = Field(description="Nominal time of the newest run.")
    last_job: str | None
    problem: str = Field(description="Why the newest run has no job.")
    created_at: datetime
    updated_at: datetime


class PeriodicList(Schema):
    periodic: list[PeriodicOut]


def _body(schema: type[Schema]) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"schema": schema.model_json_schema()}}, "required": True}}


def _change_body() -> dict[str, Any]:
    schema = PeriodicOptions.model_json_schema()
    return {"requestBody": {"content": {"application/json": {"schema": {**schema, "required": []}}}, "required": True}}


@router.get(
    "/periodic",
    response={200: PeriodicList, REFUSED: Failure},
    operation_id="list_periodic",
    summary="List periodic jobs",
)
async def list_periodic(request: HttpRequest) -> HttpResponse:
    requester = caller(request)
    requester.check("view_periodicjob")

    def found() -> list[dict[str, Any]]:
        return [_out(requester, row) for row in PeriodicJob.objects.all() if requester.may_use(row.pool)]

    return json_response({"periodic": await sync_to_async(found)()})


@router.get(
    "/periodic/{name}",
    response={200: PeriodicOut, REFUSED: Failure},
    operation_id="get_periodic",
    summary="One periodic job",
)
async def get_periodic(request: HttpRequest, name: str) -> HttpResponse:
    requester = caller(request)
    requester.check("view_periodicjob")
    return json_response(await sync_to_async(lambda: _out(requester, _find(requester, name)))())


@router.post(
    "/periodic",
    response={201: PeriodicOut, REFUSED: Failure},
    operation_id="add_periodic",
    summary="Add a periodic job",
    openapi_extra=_body(PeriodicIn),
)
async def add(request: HttpRequest) -> HttpResponse:
    """Add a schedule whose jobs belong to the caller. Pool, command, arguments and options are checked as for a job."""
    requester = await _permitted(request, "add_periodic")
    wanted = read(request, PeriodicIn)
    requester.check_pool(wanted.pool)

    def act(order: Order) -> PeriodicJob:
        return periodic_orders.save(PeriodicJob(owner=requester.owner), _values(wanted), order)

    return await _act(requester, act, status=201)


@router.patch(
    "/periodic/{name}",
    response={200: PeriodicOut, REFUSED: Failure},
    operation_id="change_periodic",
    summary="Change a periodic job",
    openapi_extra=_change_body(),
)
async def change(request: HttpRequest, name: str) -> HttpResponse:
    """Change the fields of the body. A changed schedule goes on with its next time."""
    requester = await _permitted(request, "change_periodic")
    row = await sync_to_async(lambda: _find(requester, name))()
    present = {one: getattr(row, one) for one in PeriodicOptions.model_fields} | {"tags": row.tag_list}
    given = read(request, _Changes)
    values = _values(PeriodicOptions(**{**present, **given.model_dump(exclude_unset=True)}))
    requester.check_pool(values["pool"])
    changed = {one: values[one] for one in given.model_fields_set}
    return await _act(requester, lambda order: periodic_orders.save(row, changed, order))


class _Changes(PeriodicOptions):
    pool: str = ""
    command: str = ""


@router.delete(
    "/periodic/{name}",
    response={204: None, REFUSED: Failure},
    operation_id="delete_periodic",
    summary="Delete a periodic job",
)
async def delete(request: HttpRequest, name: str) -> HttpResponse:
    """Delete a schedule; its jobs stay."""
    requester = await _permitted(request, "delete_periodic")
    await sync_to_async(lambda: _find(requester, name))()
    await _act(requester, lambda order: periodic_orders.delete(name, order))
    return HttpResponse(status=204)


@order_route(router, "/periodic/{name}/run", "run_periodic", "Run now", ReasonIn, JobOut)
async def run(request: HttpRequest, name: str) -> HttpResponse:
    """Submit its job once, beside the schedule."""
    return await _order(request, name, "run_periodic", periodic_orders.run)


@order_route(router, "/periodic/{name}/pause", "pause_periodic", "Pause a periodic job", ReasonIn, PeriodicOut)
async def pause(request: HttpRequest, name: str) -> HttpResponse:
    """Submit nothing until a resume. Times that pass meanwhile are not missed runs."""
    return await _order(request, name, "pause_periodic", periodic_orders.pause)


@order_route(router, "/periodic/{name}/resume", "resume_periodic", "Resume a periodic job", ReasonIn, PeriodicOut)
async def resume(request: HttpRequest, name: str) -> HttpResponse:
    """Go on with the next time of the schedule."""
    return await _order(request, name, "resume_periodic", periodic_orders.resume)


async def _order(request: HttpRequest, name: str, action: str, work: Callable[[str, Order], Any]) -> HttpResponse:
    requester = await _permitted(request, action)
    await sync_to_async(lambda: _find(requester, name))()
    return await _act(requester, lambda order: work(name, order), reason=read(request, ReasonIn).reason)


async def _permitted(request: HttpRequest, action: str) -> Caller:
    """The caller, if it may give this order; a refusal is in the audit."""
    requester = caller(request)
    try:
        requester.allow(action)
    except PermissionDenied as error:
        await sync_to_async(orders.refused)(order_from(requester, ""), action, error)
        raise
    return requester


async def _act(requester: Caller, work: Callable[[Order], Any], *, status: int = 200, reason: str = "") -> HttpResponse:
    """Carry out an order, and answer with what it returned."""

    def act() -> Mapping[str, Any]:
        found = work(order_from(requester, reason))
        if found is None:
            return {}
        return _out(requester, found) if isinstance(found, PeriodicJob) else shown_to(requester, found)

    return json_response(await sync_to_async(act)(), status=status)


def _find(requester: Caller, name: str) -> PeriodicJob:
    row = periodic_orders.find(name)
    if not requester.may_use(row.pool):
        raise PeriodicUnknown(f"No periodic job is named {name[:50]!r}.")
    return row


def _values(wanted: PeriodicOptions) -> dict[str, Any]:
    return {**wanted.model_dump(), "tags": ",".join(wanted.tags)}


def _out(requester: Caller, row: PeriodicJob) -> dict[str, Any]:
    own = (*PeriodicIn.model_fields, "owner", "problem", *TIMES)
    shown: dict[str, Any] = {name: getattr(row, name) for name in own}
    shown |= {"tags": row.tag_list, "next_runs": row.next_runs(), "last_job": str(row.last_job or "") or None}
    hidden = not requester.sees_payload(row.owner)
    shown |= {"payload_hidden": hidden, "arguments": None if hidden else row.arguments}
    shown["next_runs"] = [_text(moment) for moment in shown["next_runs"]]
    return {name: _text(value) if isinstance(value, datetime) else value for name, value in shown.items()}


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")

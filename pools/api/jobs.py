"""Jobs: submit, list, show, cancel, retry and clone. A job that the caller may not see is 404."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlencode

from asgiref.sync import sync_to_async
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from ninja import Query, Router, Schema
from ninja.params import functions
from pydantic import BaseModel, ValidationError

from snakepit.pools import conf
from snakepit.pools import jobs as durable
from snakepit.pools.api.auth import BrowserAuth, Caller, KeyAuth, caller
from snakepit.pools.api.body import read_lines, read_object
from snakepit.pools.api.calls import json_response
from snakepit.pools.api.job_events import position, stream
from snakepit.pools.api.job_predecessors import VisibleJobs, refuse_both
from snakepit.pools.api.job_schemas import (
    BatchOut,
    JobFilter,
    JobFilters,
    JobIn,
    JobOptionsIn,
    JobOut,
    JobPage,
    StreamTokenIn,
    StreamTokenOut,
)
from snakepit.pools.api.operate import read
from snakepit.pools.api.schemas import Failure, answers
from snakepit.pools.api.stream_tokens import LONGEST, SECONDS, Bearer, StreamTokenAuth
from snakepit.pools.broker.caller import acting_for
from snakepit.pools.broker.errors import BadRequest, BrokerError, PermissionDenied
from snakepit.pools.client import Json
from snakepit.pools.jobs import unique, waiting
from snakepit.pools.jobs.bulk import on_line
from snakepit.pools.jobs.listing import JobQuery, page
from snakepit.pools.jobs.privacy import hide_payload
from snakepit.pools.models import Job
from snakepit.pools.models.job import JobQuerySet
from snakepit.pools.models.moments import utc_now
from snakepit.pools.operations import orders
from snakepit.pools.operations.orders import Order
from snakepit.pools.web.errors import all_or_nothing

router = Router(tags=["jobs"])
Model = TypeVar("Model", bound=BaseModel)
View = TypeVar("View", bound=Callable[..., Any])
NOT_AS_STORED = ("arguments", "result", "workflow")
TOKEN = functions.Query("", max_length=LONGEST, description="Of `POST /stream-tokens`, in place of a header.")
REFUSED = frozenset({400, 401, 403, 404, 413, 422, 429, 503})
BODY = {"requestBody": {"content": {"application/json": {"schema": JobIn.model_json_schema()}}, "required": True}}

LISTS = frozenset({"tags", "unique_by", "unique_states", "depends_on"})  # parameters that may be repeated
LINES = {
    "parameters": [
        {"name": name, "in": "query", "required": name in ("pool", "command"), "schema": schema}
        for name, schema in JobOptionsIn.model_json_schema()["properties"].items()
    ],
    "requestBody": {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}, "required": True},
}


def _submits(path: str, schema: type[Schema], body: dict[str, Any], **names: str) -> Callable[[View], View]:
    """A route that stores jobs: 201 if it created at least one, 200 if all exist already."""
    response = {201: schema, 200: schema, REFUSED: Failure}
    return router.post(path, response=response, openapi_extra=body, **names)  # type: ignore[arg-type]


@_submits("/jobs", JobOut, BODY, operation_id="submit_job", summary="Submit")
async def submit(request: HttpRequest) -> HttpResponse:
    """Store a job. 201: created. 200: it exists already: one with this idempotency key (or header Idempotency-Key), or
    with `unique` one that is the same.
    """
    requester = caller(request)
    wanted = _valid(JobIn, read_object(request))
    requester.allow("submit_job", wanted.pool)
    refuse_both(wanted.arguments, wanted.results)
    given = wanted.model_dump(exclude={"pool", "command", "arguments", "results"}, exclude_none=True)
    key = request.headers.get("Idempotency-Key") or wanted.idempotency_key
    given |= {"idempotency_key": key, "owner": requester.owner, "unique": unique.from_parts(given)}

    def store() -> Job:
        seen = visible(requester)
        seen.find("depends_on", wanted.depends_on)
        arguments = Json({**wanted.arguments, **seen.results(wanted.results)})
        with all_or_nothing():
            job = durable.submit(wanted.pool, wanted.command, arguments, **given)
        return waiting.explain(job)

    with acting_for(requester.quota):
        job = await sync_to_async(store)()
    response = json_response(shown_to(requester, job), status=200 if job.existed else 201)
    response["Location"] = f"{request.path}/{job.pk}"
    return response


@_submits("/jobs/batch", BatchOut, LINES, operation_id="submit_jobs", summary="Submit many")
async def submit_many(request: HttpRequest) -> HttpResponse:
    """Store one job for each line of the body (NDJSON), all or none. The query has the command and the options.

    A line is the JSON object of a job's arguments. With the header Idempotency-Key, line N has the key `KEY:N`, so that
    a repeated request finds the same jobs. 201: at least one job was created. 200: all exist already.
    """
    requester = caller(request)
    given = {name: request.GET.getlist(name) if name in LISTS else request.GET[name] for name in request.GET}
    requester.allow("submit_job", request.GET.get("pool", ""))
    wanted = _valid(JobOptionsIn, given)
    rows = read_lines(request, conf.current().jobs_batch_rows)
    options = wanted.model_dump(exclude={"pool", "command"}, exclude_none=True) | {"owner": requester.owner}
    options["unique"] = unique.from_parts(options)
    key = request.headers.get("Idempotency-Key")
    keys = [f"{key}:{number}" for number in range(1, len(rows) + 1)] if key else None
    try:
        await sync_to_async(lambda: visible(requester).find("depends_on", wanted.depends_on))()
        with acting_for(requester.quota), all_or_nothing():
            found = await durable.asubmit_many(wanted.pool, wanted.command, rows, idempotency_keys=keys, **options)
    except BrokerError as error:
        raise on_line(error) from None
    created = len({job.pk for job in found if not job.existed})
    answer = {"ids": [str(job.pk) for job in found], "count": len(found), "created": created}
    return json_response(answer, status=201 if created else 200)


@router.get("/jobs", response={200: JobPage, REFUSED: Failure}, operation_id="list_jobs", summary="List")
async def list_jobs(request: HttpRequest, filters: Query[JobFilter]) -> HttpResponse:
    """The jobs that the caller may see, newest first."""
    requester = caller(request)
    found, after = await sync_to_async(lambda: _page(filtered(requester, filters), filters))()
    return json_response({"jobs": [shown_to(requester, job, brief=True) for job in found], "next": after})


@router.get("/jobs/{job_id}", response={200: JobOut, REFUSED: Failure}, operation_id="get_job", summary="One job")
async def get_job(request: HttpRequest, job_id: str) -> HttpResponse:
    requester = caller(request)
    return json_response(shown_to(requester, await sync_to_async(lambda: waiting.explain(_find(requester, job_id)))()))


@router.get(
    "/jobs/{job_id}/events",
    response={204: None, REFUSED: Failure},
    openapi_extra=answers("text/event-stream"),
    operation_id="job_events",
    summary="Output of a job",
    auth=[KeyAuth(), StreamTokenAuth(), BrowserAuth()],
)
async def events(request: HttpRequest, job_id: str, token: str = TOKEN) -> HttpResponseBase:
    """Server-sent events: `chunk`, `log`, `progress`, `truncated`, and last `end` with the ended job.

    To resume a stream, send the header `Last-Event-ID` (browsers do): it continues after that event. With the id of
    `end`, the response is 204, after which a browser connects no more. `close` ends a stream whose job goes on:
    connect again. `EventSource` can send no header: give it a `token` of `POST /stream-tokens`.
    """
    requester = caller(request)
    job = await sync_to_async(lambda: readable(requester, job_id))()
    last = position(request, job)
    if last is None:
        return HttpResponse(status=204)
    return await stream(request, job.pk, last, lambda found: out(found))


@router.post(
    "/jobs/{job_id}/cancel", response={200: JobOut, REFUSED: Failure}, operation_id="cancel_job", summary="Cancel"
)
async def cancel(request: HttpRequest, job_id: str) -> HttpResponse:
    """Cancel a job: immediately if it is queued, within two seconds if it runs. An ended job stays unchanged."""
    return await _act(request, job_id, "cancel_job", orders.cancel_job)


@router.post(
    "/jobs/{job_id}/retry", response={200: JobOut, REFUSED: Failure}, operation_id="retry_job", summary="Retry"
)
async def retry(request: HttpRequest, job_id: str) -> HttpResponse:
    """Queue a job again after it ended without success."""
    return await _act(request, job_id, "retry_job", orders.retry_job)


@router.post(
    "/jobs/{job_id}/clone", response={201: JobOut, REFUSED: Failure}, operation_id="clone_job", summary="Clone"
)
async def clone(request: HttpRequest, job_id: str) -> HttpResponse:
    """Submit a new job of the caller with the same command, arguments and options."""
    requester = caller(request)

    def act() -> Job:
        job = _find(requester, job_id)
        requester.allow("clone_job", job.pool)
        _check_payload(requester, job)  # the caller owns the clone, which would reveal the payload
        with acting_for(requester.quota):
            return durable.clone(job.pk, requester.owner)

    return json_response(shown_to(requester, await sync_to_async(act)()), status=201)


async def _act(request: HttpRequest, job_id: str, action: str, what: Callable[[Any, Order], Job]) -> HttpResponse:
    requester = caller(request)

    def act() -> Job:
        job = _find(requester, job_id)
        order = Order(requester.actor, "", requester.owner, "rest", requester.address)
        if not (job.owner == requester.owner and "run_command" in requester.permissions):
            try:
                requester.allow(action)
            except PermissionDenied as error:
                orders.refused(order, action, error, job.pool, str(job.pk))
                raise
        return what(job.pk, order)

    return json_response(shown_to(requester, await sync_to_async(act)()))


@router.post(
    "/stream-tokens",
    response={201: StreamTokenOut, REFUSED: Failure},
    operation_id="create_stream_token",
    summary="A token for EventSource",
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": StreamTokenIn.model_json_schema()}}}},
)
async def create_stream_token(request: HttpRequest) -> HttpResponse:
    """A token that opens the stream of one job for 60 seconds. It needs the rights that the stream itself needs."""
    requester = caller(request)
    wanted = read(request, StreamTokenIn)
    job = await sync_to_async(lambda: readable(requester, wanted.job))()
    token = Bearer(str(job.pk), requester.key, requester.owner).token()
    url = f"{request.path.removesuffix('/stream-tokens')}/jobs/{job.pk}/events?{urlencode({'token': token})}"
    expires = (utc_now() + timedelta(seconds=SECONDS)).isoformat(timespec="seconds").replace("+00:00", "Z")
    return json_response({"token": token, "url": url, "expires_at": expires}, status=201)


def readable(requester: Caller, job_id: str) -> Job:
    """The job, if the caller may read its output."""
    job = _find(requester, job_id)
    _check_payload(requester, job)
    return job


def _check_payload(requester: Caller, job: Job) -> None:
    if not requester.sees_payload(job.owner):
        requester.check("view_payload")


def _find(requester: Caller, job_id: str) -> Job:
    try:
        job = Job.objects.filter(pk=uuid.UUID(job_id)).first()
    except ValueError:
        job = None
    if job is None or not requester.may_use(job.pool) or not _may_see(requester, job):
        raise Http404(f"No job is named {job_id[:50]!r}.")
    return job


def _may_see(requester: Caller, job: Job) -> bool:
    return (
        "view_job" in requester.permissions
        or "manage_job" in requester.permissions
        or ("run_command" in requester.permissions and job.owner == requester.owner)
    )


def visible(requester: Caller) -> VisibleJobs:
    """The jobs that a submission of the caller may wait for."""
    return VisibleJobs(filtered(requester, JobFilters()), requester.sees_payload)


def filtered(requester: Caller, filters: JobFilters) -> JobQuerySet:
    rows = Job.objects.all()
    if not {"view_job", "manage_job"} & requester.permissions:
        requester.check("run_command")
        rows = rows.filter(owner=requester.owner)
    if filters.pool:
        requester.check_pool(filters.pool)
    if not filters.pool and requester.pools is not None:
        rows = rows.filter(pool__in=requester.pools)
    if filters.arguments and "view_payload" not in requester.permissions:
        requester.check("run_command")
        rows = rows.filter(owner=requester.owner)  # a search reveals what the arguments of others contain
    return JobQuery(**filters.model_dump(include=set(JobFilters.model_fields))).rows(rows)


def _page(rows: QuerySet[Job], filters: JobFilter) -> tuple[list[Job], str | None]:
    most = conf.current().page_limit
    limit = min(50, most) if filters.limit is None else filters.limit
    if not 1 <= limit <= most:
        raise BadRequest(f"limit: {limit} is outside 1 to {most}", details={"fields": {"limit": most}})
    return page(rows, limit, filters.cursor or "")


def _valid(model: type[Model], given: dict[str, Any]) -> Model:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        fields = {".".join(map(str, one["loc"])): one["msg"] for one in error.errors()}
        message = "; ".join(f"{name}: {why}" for name, why in fields.items())
        raise BadRequest(message, details={"fields": fields}) from None


def shown_to(requester: Caller, job: Job, *, brief: bool = False) -> dict[str, Any]:
    """A job for this caller. If it may not see the payload, this is null, and the error has only its kind."""
    hidden = not requester.sees_payload(job.owner)
    shown = out(hide_payload(job) if hidden else job, brief=brief)
    return shown if brief else {**shown, "payload_hidden": hidden}


def out(job: Job, *, brief: bool = False) -> dict[str, Any]:
    """A job as the API shows it; `brief`, for lists, leaves out arguments and result."""
    shown = {
        name: getattr(job, name) for name in JobOut.model_fields if hasattr(Job, name) and name not in NOT_AS_STORED
    }
    shown["workflow"] = str(job.workflow_id) if job.workflow_id else None
    shown |= {"id": str(job.pk), "state": job.shown_state, "tags": job.tag_list}
    if brief:
        shown["arguments_short"] = getattr(job, "arguments_short", "")
    else:
        shown |= {"payload_hidden": False, "arguments": job.arguments, "result": job.value}
    for name, value in shown.items():
        if isinstance(value, datetime):
            shown[name] = value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return shown

"""Cancel, retry or delete all jobs that a filter matches; with `dry_run`, only count and show them."""

from __future__ import annotations

import uuid
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from ninja import Field, Router, Schema

from snakepit.pools.api.auth import Caller, caller
from snakepit.pools.api.calls import json_response
from snakepit.pools.api.job_schemas import JobOut, Moment
from snakepit.pools.api.jobs import shown_to
from snakepit.pools.api.operate import order_route, read
from snakepit.pools.broker.errors import BadRequest, PermissionDenied
from snakepit.pools.jobs import bulk_actions
from snakepit.pools.jobs.listing import JobQuery
from snakepit.pools.models import Job
from snakepit.pools.models.job import JobQuerySet
from snakepit.pools.operations import job_orders, orders
from snakepit.pools.operations.orders import MAX_REASON, Order

router = Router(tags=["jobs"])
SECONDS = 10.0  # a request works no longer; `left` then asks for another one
NOT_FILTERS = frozenset({"dry_run", "upto", "all", "reason", "limit", "cursor"})


class BulkIn(Schema):
    """The filters of `GET /jobs`, of which at least one is needed, or `all`."""

    model_config = {"extra": "forbid"}

    pool: str = ""
    state: str = ""
    command: str = ""
    tag: str = ""
    owner: str = ""
    since: Moment | None = Field(default=None, description="Created at or after.")
    until: Moment | None = Field(default=None, description="Created before.")
    workflow: str = Field(default="", max_length=36, description="The id of a workflow.")
    all: bool = Field(default=False, description="Needed without any filter.")
    dry_run: bool = Field(default=False, description="Count and show the jobs, and change nothing.")
    upto: str = Field(default="", max_length=36, description="Of the preview: newer jobs stay as they are.")
    reason: str = Field(default="", max_length=MAX_REASON)


class BulkOut(Schema):
    action: str
    dry_run: bool
    count: int = Field(description="Jobs that were changed or, with `dry_run`, that would be.")
    more: bool = Field(description="With `dry_run`: the count stopped at 100,000.")
    left: bool = Field(description="The time of the request was over: send it again for the other jobs.")
    upto: str | None = Field(description="The newest of these jobs, for the request that changes them.")
    sample: list[JobOut] = Field(description="With `dry_run`: the newest ten of them.")


@order_route(router, "/jobs/cancel", "cancel_jobs", "Cancel all that match", BulkIn, BulkOut)
async def cancel_jobs(request: HttpRequest) -> HttpResponse:
    """End those that wait, and ask those that run to stop."""
    return await _act(request, "cancel")


@order_route(router, "/jobs/retry", "retry_jobs", "Retry all that match", BulkIn, BulkOut)
async def retry_jobs(request: HttpRequest) -> HttpResponse:
    """Queue those again that ended without success."""
    return await _act(request, "retry")


@order_route(router, "/jobs/delete", "delete_jobs", "Delete all that match", BulkIn, BulkOut)
async def delete_jobs(request: HttpRequest) -> HttpResponse:
    """Delete those that have ended, with their output. Jobs that wait or run stay."""
    return await _act(request, "delete")


async def _act(request: HttpRequest, action: str) -> HttpResponse:
    requester, wanted = caller(request), read(request, BulkIn)
    filters = wanted.model_dump(exclude=set(NOT_FILTERS))
    if not wanted.all and not any(filters.values()):
        raise BadRequest("give at least one filter, or all=true to change every job")

    upto_id = _id(wanted.upto) if wanted.upto else None

    def act() -> dict[str, Any]:
        order = Order(requester.actor, wanted.reason, requester.owner, "rest", requester.address)
        rows = JobQuery(**filters).rows(changeable(requester, action, order, wanted.pool))
        base = {"action": action, "dry_run": wanted.dry_run, "more": False, "left": False, "upto": None, "sample": []}
        if wanted.dry_run:
            found = bulk_actions.preview(action, rows)
            sample = [shown_to(requester, job, brief=True) for job in found.sample]
            upto = str(found.upto) if found.upto else None
            return {**base, "count": found.count, "more": found.more, "upto": upto, "sample": sample}
        done = job_orders.act(action, rows, filters, order, upto=upto_id, seconds=SECONDS)
        return {**base, "count": done.done, "left": done.left}

    return json_response(await sync_to_async(act)())


def changeable(requester: Caller, action: str, order: Order, pool: str = "") -> JobQuerySet:
    """The jobs that the caller may change: all of its pools, or its own, as for a single job."""
    try:
        if pool:
            requester.check_pool(pool)
        if "manage_job" not in requester.permissions:
            requester.check("run_command")
    except PermissionDenied as error:
        orders.refused(order, f"{action}_jobs", error, pool)
        raise
    rows = Job.objects.all()
    if "manage_job" not in requester.permissions:
        rows = rows.filter(owner=requester.owner)
    return rows if requester.pools is None else rows.filter(pool__in=requester.pools)


def _id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise BadRequest("upto: must be the unchanged `upto` of the preview") from None

"""Workflows: submit, list, show. A workflow is visible to those who may see one of its jobs."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from ninja import Field, Query, Router, Schema

from snakepit.pools.api.auth import Caller, caller
from snakepit.pools.api.bounds import PAGE
from snakepit.pools.api.calls import json_response
from snakepit.pools.api.job_schemas import JobFilters
from snakepit.pools.api.jobs import REFUSED, filtered, visible
from snakepit.pools.api.operate import read
from snakepit.pools.api.schemas import Failure
from snakepit.pools.broker.caller import acting_for
from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.jobs import workflow_spec, workflows
from snakepit.pools.models import JobEdge, JobWorkflow
from snakepit.pools.models.states import QUEUED, SCHEDULED
from snakepit.pools.web.errors import all_or_nothing

router = Router(tags=["jobs"])


class WorkflowIn(Schema):
    """`jobs` in an order in which each job comes after those that it waits for."""

    model_config = {"extra": "forbid"}

    name: str = Field(default="", max_length=100)
    jobs: list[dict[str, Any]] = Field(
        max_length=workflows.MOST_JOBS,
        description="Each has `pool`, `command`, `arguments` and options of a job, and: `id`, a name for the others; "
        "`after`, ids of jobs; `results`, by argument the id of a job, or a list of ids; `on_failure`: cancel or run. "
        "The id of a job that was submitted before may stand for a name.",
    )


class WorkflowJobOut(Schema):
    id: str
    pool: str
    command: str
    state: str
    after: list[str] = Field(description="The jobs that it waits for.")


class WorkflowOut(Schema):
    id: str
    name: str
    owner: str
    state: str = Field(description="running, succeeded, or failed: a job ended without success.")
    states: dict[str, int] = Field(description="Number of jobs in each state.")
    created_at: datetime
    jobs: list[WorkflowJobOut] = Field(description="Not in lists.", default_factory=list)


class WorkflowPage(Schema):
    workflows: list[WorkflowOut]
    next: str | None = Field(description="The `cursor` of the next, older page; null on the last page.")


class WorkflowFilter(Schema):
    limit: int = Field(default=50, ge=1, le=200, json_schema_extra=PAGE)
    cursor: str = ""


BODY = {"requestBody": {"content": {"application/json": {"schema": WorkflowIn.model_json_schema()}}, "required": True}}


@router.post(
    "/workflows",
    response={201: WorkflowOut, REFUSED: Failure},
    operation_id="submit_workflow",
    summary="Submit jobs that wait for each other",
    openapi_extra=BODY,
)
async def submit_workflow(request: HttpRequest) -> HttpResponse:
    """Store all jobs or none. A job with predecessors is `blocked` until they have ended."""
    requester, wanted = caller(request), read(request, WorkflowIn)
    requester.check("run_command")
    steps = workflow_spec.read(wanted.jobs)
    for step in steps:
        requester.allow("submit_job", str(step.pool))

    def store() -> dict[str, Any]:
        _check_earlier(requester, steps)
        with acting_for(requester.quota), all_or_nothing():
            row = workflows.submit(steps, wanted.name, requester.owner)
        return _shown(requester, row)

    return json_response(await sync_to_async(store)(), status=201)


def _check_earlier(requester: Caller, steps: Sequence[workflows.Step]) -> None:
    """Refuse jobs from before the workflow that the caller may not see, or whose result it may not read."""
    seen = visible(requester)
    earlier = [need for step in steps for need in step.needs if need.job]
    seen.find("after", [need.job for need in earlier if not need.argument])
    seen.find("results", [need.job for need in earlier if need.argument], results=True)


@router.get(
    "/workflows", response={200: WorkflowPage, REFUSED: Failure}, operation_id="list_workflows", summary="Workflows"
)
async def list_workflows(request: HttpRequest, filters: Query[WorkflowFilter]) -> HttpResponse:
    """Those with a job that the caller may see, newest first."""
    requester = caller(request)

    def find() -> dict[str, Any]:
        visible = filtered(requester, JobFilters()).exclude(workflow=None).order_by()
        rows = JobWorkflow.objects.filter(pk__in=visible.values("workflow"))
        if filters.cursor:
            rows = rows.filter(pk__lt=_id(filters.cursor))
        found = list(rows.order_by("-pk")[: filters.limit + 1])
        more = str(found[filters.limit - 1].pk) if len(found) > filters.limit else None
        return {"workflows": [_shown(requester, one, brief=True) for one in found[: filters.limit]], "next": more}

    return json_response(await sync_to_async(find)())


@router.get(
    "/workflows/{workflow_id}",
    response={200: WorkflowOut, REFUSED: Failure},
    operation_id="get_workflow",
    summary="One workflow",
)
async def get_workflow(request: HttpRequest, workflow_id: str) -> HttpResponse:
    requester = caller(request)

    def find() -> dict[str, Any]:
        try:
            row = JobWorkflow.objects.filter(pk=uuid.UUID(workflow_id)).first()
        except ValueError:
            row = None
        allowed = {"view_job", "manage_job", "run_command"} & requester.permissions
        shown = _shown(requester, row) if row and allowed else None
        if shown is None or not shown["states"]:
            raise Http404(f"No workflow is named {workflow_id[:50]!r}.")
        return shown

    return json_response(await sync_to_async(find)())


def _id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise BadRequest("cursor: must be the unchanged `next` of the previous page") from None


def _shown(requester: Caller, row: JobWorkflow, *, brief: bool = False) -> dict[str, Any]:
    """A workflow with those of its jobs that the caller may see."""
    jobs = filtered(requester, JobFilters()).filter(workflow=row)
    return describe(row, jobs, brief=brief)


def describe(row: JobWorkflow, jobs: Any, *, brief: bool = False) -> dict[str, Any]:
    """A workflow as programs read it."""
    states = dict(jobs.order_by().values_list("state").annotate(count=Count("pk")))
    if states.get(QUEUED) and (later := jobs.shown_as(SCHEDULED).count()):
        states = {**states, SCHEDULED: later, QUEUED: states[QUEUED] - later}
        states = {state: count for state, count in states.items() if count > 0}
    shown: dict[str, Any] = {
        "id": str(row.pk),
        "name": row.name,
        "owner": row.owner,
        "state": workflows.state_of(states),
    }
    shown |= {"states": states, "created_at": row.created_at.isoformat(), "jobs": []}
    if brief:
        return shown
    after: dict[Any, list[str]] = {}
    for job, needs in JobEdge.objects.filter(job__in=jobs).order_by("pk").values_list("job_id", "needs_id"):
        after.setdefault(job, []).append(str(needs))
    found = jobs.order_by("pk").only("pk", "pool", "command", "state", "run_after")
    listed = [
        {
            "id": str(job.pk), "pool": job.pool, "command": job.command, "state": job.shown_state,
            "after": list(dict.fromkeys(after.get(job.pk, []))),
        }
        for job in found
    ]  # fmt: skip
    return {**shown, "jobs": listed}

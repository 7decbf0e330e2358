"""Lists of jobs beside the pages: errors in groups, and an export of any size."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from ninja import Field, Query, Router, Schema

from snakepit.pools.api.auth import caller
from snakepit.pools.api.body import dumps
from snakepit.pools.api.calls import json_response
from snakepit.pools.api.job_schemas import JobFilters
from snakepit.pools.api.jobs import REFUSED, filtered, shown_to
from snakepit.pools.api.schemas import Failure
from snakepit.pools.jobs import error_groups, export
from snakepit.pools.jobs.leases import db_unit

router = Router(tags=["jobs"])
TEXT = {"schema": {"type": "string"}}
FILES = {"responses": {200: {"description": "OK", "content": dict.fromkeys(export.FORMATS.values(), TEXT)}}}


class ErrorGroupOut(Schema):
    pool: str
    command: str
    code: str
    kind: str = Field(description="The class of the exception.")
    message: str = Field(description="The first line, with # for numbers. Only the kind, if the text is hidden.")
    count: int
    newest: str = Field(description="The newest job of the group.")
    at: datetime = Field(description="When the newest job was created.")


class ErrorGroupsOut(Schema):
    errors: list[ErrorGroupOut] = Field(description="The largest group first.")
    covered: int = Field(description="The groups cover so many of the newest jobs that match.")


class ExportFilters(JobFilters):
    format: str = Field(default="ndjson", json_schema_extra={"enum": list(export.FORMATS)})


@router.get(
    "/jobs/errors",
    response={200: ErrorGroupsOut, REFUSED: Failure},
    operation_id="job_errors",
    summary="Errors in groups",
)
async def errors(request: HttpRequest, filters: Query[JobFilters]) -> HttpResponse:
    """The errors of jobs that ended without success, by pool, command, kind and first line, with counts."""
    requester = caller(request)

    def read() -> list[dict[str, Any]]:
        found = error_groups.groups(filtered(requester, filters), requester.sees_payload)
        return [{**asdict(one), "newest": str(one.newest), "at": one.at.isoformat()} for one in found]

    return json_response({"errors": await sync_to_async(read)(), "covered": error_groups.COVERED})


@router.get(
    "/jobs/export",
    response={REFUSED: Failure},
    openapi_extra=FILES,
    operation_id="export_jobs",
    summary="Export",
)
async def export_jobs(request: HttpRequest, filters: Query[ExportFilters]) -> StreamingHttpResponse:
    """All jobs that match as NDJSON or CSV, newest first, streamed. What the caller may not see is null."""
    requester, form = caller(request), export.check_format(filters.format)
    rows = await sync_to_async(lambda: filtered(requester, filters))()
    pages = export.pages(rows, lambda job: shown_to(requester, job), form, dumps)

    def following() -> str | None:
        with db_unit():  # an export may last long, and must not keep a database connection
            return next(pages, None)

    async def body() -> AsyncIterator[str]:
        while (text := await sync_to_async(following)()) is not None:
            yield text

    # Django would read the whole of an asynchronous body into memory for a WSGI server, and of the other under ASGI.
    content = body() if isinstance(request, ASGIRequest) else iter(following, None)
    response = StreamingHttpResponse(content, content_type=export.FORMATS[form])
    response["Content-Disposition"] = f'attachment; filename="jobs.{form}"'
    return response

"""A job's output as server-sent events: stored entries, then new entries, then the end.

Each stream reads the rows once a second, by index, on a thread that keeps no database connection.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, StreamingHttpResponse

from snakepit.pools import conf
from snakepit.pools.api.body import dumps
from snakepit.pools.api.streams import HEARTBEAT, guarded, synchronous
from snakepit.pools.jobs.leases import db_unit
from snakepit.pools.models import Job, JobEntry

POLL = 1.0  # seconds between two reads
BATCH = 200  # rows of one read

Show = Callable[[Job], dict[str, Any]]


def stream(request: HttpRequest, job_id: uuid.UUID, last: int, show: Show) -> StreamingHttpResponse:
    produced = guarded(frames(job_id, last, show), request)
    # Under WSGI, Django would collect an asynchronous stream completely before it sends the first byte.
    content = produced if isinstance(request, ASGIRequest) else synchronous(produced)
    response = StreamingHttpResponse(content, content_type="text/event-stream; charset=utf-8")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"  # otherwise nginx buffers the events
    return response


async def frames(job_id: uuid.UUID, last: int, show: Show) -> AsyncGenerator[str, None]:
    quiet = time.monotonic()
    while True:
        try:
            entries, job = await sync_to_async(_read)(job_id, last)
        except (OperationalError, InterfaceError):
            # The stream survives a restart of the database.
            yield HEARTBEAT
            await asyncio.sleep(POLL)
            continue
        for entry in entries:
            last = entry.seq
            yield f"id: {entry.seq}\nevent: {entry.kind}\ndata: {dumps(entry.data)}\n\n"
        if entries:
            quiet = time.monotonic()
        if job is None:  # pruned meanwhile
            return
        if len(entries) == BATCH:
            continue
        if job.ended:
            yield f"event: end\ndata: {dumps(show(job))}\n\n"
            return
        if time.monotonic() - quiet >= conf.current().stream_heartbeat:
            quiet = time.monotonic()
            yield HEARTBEAT
        await asyncio.sleep(POLL)


def _read(job_id: uuid.UUID, last: int) -> tuple[list[JobEntry], Job | None]:
    with db_unit():
        # The job is read first, so that the entries include all output before its end.
        job = Job.objects.filter(pk=job_id).first()
        return list(JobEntry.objects.filter(job_id=job_id, seq__gt=last).order_by("seq")[:BATCH]), job

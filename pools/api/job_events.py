"""A job's output as server-sent events: stored entries, then new entries, then the end.

A stream reads the stored entries itself. New ones come from the hub, which reads the rows once for all streams. After
STREAM_LIFETIME the event `close` ends the stream; a reader that sends its last id as `Last-Event-ID` misses nothing.

The event `end` has the id of this end. `EventSource` connects again after every stream, and sends that id; the answer
204 then stops it. A job that was queued again has another end, and its events begin anew.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, StreamingHttpResponse

from snakepit.pools import conf
from snakepit.pools.api.body import dumps
from snakepit.pools.api.job_hub import BATCH, Follower, frame_of, hub
from snakepit.pools.api.streams import HEARTBEAT, open_response
from snakepit.pools.api.turns import within
from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.jobs.leases import db_unit
from snakepit.pools.models import Job, JobEntry

POLL = 1.0  # seconds until a stream tries the database again
CLOSE = 'event: close\ndata: {"reason":"lifetime"}\n\n'

Show = Callable[[Job], dict[str, Any]]


async def stream(request: HttpRequest, job_id: uuid.UUID, last: int, show: Show) -> StreamingHttpResponse:
    found = getattr(request, "auth", None)
    lifetime = min(conf.current().stream_lifetime, found.quota.smallest("stream_lifetime") if found else math.inf)
    return await open_response(request, lambda: frames(job_id, last, show, lifetime))


async def frames(job_id: uuid.UUID, last: int, show: Show, lifetime: float) -> AsyncGenerator[str, None]:
    """The stored entries by this stream's own reads, then the hub's news."""
    ends = time.monotonic() + lifetime
    quiet = time.monotonic()
    while True:  # until this stream has read all that is stored
        try:
            entries, job = await within(partial(sync_to_async(_read), job_id, last))
        except (OperationalError, InterfaceError):
            # The stream survives a restart of the database.
            yield HEARTBEAT
            await asyncio.sleep(POLL)
            continue
        for entry in entries:
            last = entry.seq
            yield frame_of(entry)
        if job is None:  # pruned meanwhile
            return
        if len(entries) == BATCH:
            continue
        if job.ended:
            yield end_of(job, show)
            return
        with hub.follow(job_id, last) as follower:
            async with aclosing(_followed(follower, show, quiet, ends)) as followed:
                async for frame in followed:
                    yield frame
        if follower.finished:
            return
        last = follower.last  # it is far behind: it reads the rows itself


async def _followed(follower: Follower, show: Show, quiet: float, ends: float) -> AsyncGenerator[str, None]:
    heartbeat = conf.current().stream_heartbeat
    while True:
        # These are read before the entries, so that the entries include all output before the end.
        ended, deleted = follower.job.ended, follower.job.deleted
        news = hub.news(follower)
        if news is None:
            return
        for number, frame in news:
            follower.last = number
            yield frame
        now = time.monotonic()
        if ended or deleted:
            follower.finished = True
            if ended:
                yield end_of(ended, show)
            return
        if now >= ends:
            follower.finished = True
            yield CLOSE
            return
        if news:
            quiet = now
        elif now - quiet >= heartbeat:
            quiet = now
            yield HEARTBEAT
        await follower.wait(max(0.0, min(quiet + heartbeat, ends) - time.monotonic()))


def end_of(job: Job, show: Show) -> str:
    return f"event: end\ndata: {dumps(show(job))}\nid: {end_id(job)}\n\n"


def end_id(job: Job) -> str:
    """The id of the event `end`: the time of this end in milliseconds."""
    return f"end-{int(job.finished_at.timestamp() * 1000) if job.finished_at else 0}"


def position(request: HttpRequest, job: Job) -> int | None:
    """The number of the last entry that the reader has; None: it has the end of this job, too."""
    last = request.headers.get("Last-Event-ID", "0")
    if last.startswith("end-") and last[4:].isascii() and last[4:].isdecimal():
        return None if job.ended and last == end_id(job) else 0
    if not (last.isascii() and last.isdecimal() and len(last) < 10):
        raise BadRequest("Last-Event-ID: must be the unchanged id of the last event")
    return int(last)


def _read(job_id: uuid.UUID, last: int) -> tuple[list[JobEntry], Job | None]:
    with db_unit():
        # The job is read first, so that the entries include all output before its end.
        job = Job.objects.filter(pk=job_id).first()
        return list(JobEntry.objects.filter(job_id=job_id, seq__gt=last).order_by("seq")[:BATCH]), job

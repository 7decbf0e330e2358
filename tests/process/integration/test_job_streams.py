"""Streams of jobs: one hub reads the database for all of them, and each has an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import AsyncClient

from snakepit.pools.api import job_events, job_hub
from snakepit.pools.api.job_hub import hub
from snakepit.pools.jobs import control, leases
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.models import Job

pytestmark = pytest.mark.django_db(transaction=True)
READERS = 40


def borrowed(work: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
    """Work of an event loop in a thread that keeps no connection: an open one would outlive the test's database."""

    def run() -> Any:
        try:
            return work(*arguments)
        finally:
            connections.close_all()

    return sync_to_async(run)()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_hub, "POLL", 0.01)


@pytest.fixture
async def opened(async_client: AsyncClient, amake_key: Any) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Opens a stream of a job and returns its frames; all are closed at the end."""
    key, streams = await amake_key(), []

    async def open_one(job: Job, **headers: str) -> Any:
        response = await async_client.get(f"/api/jobs/{job.pk}/events", headers={"Authorization": key, **headers})
        assert response.status_code == 200
        streams.append(aiter(response.streaming_content))
        return streams[-1]

    yield open_one
    for stream in streams:  # as the server does when its client disconnects
        reading = asyncio.ensure_future(anext(stream, None))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})
    while (thread := hub._thread) is not None:  # its connection must not outlive the test's database
        await asyncio.to_thread(thread.join, 30)


def job_of() -> Job:
    return Job.objects.create(pool="digits", command="classify", owner="ada")


def claimed(job: Job) -> Job:
    held = leases.claim(job.pk, "test", "node-1")
    assert held is not None
    return held


def report(job: Job, *values: Any) -> None:
    assert leases.append_entries(job, [("chunk", value) for value in values])


async def polls(more: int) -> None:
    until = hub.polls + more
    async with asyncio.timeout(30):
        while hub.polls < until:
            await asyncio.sleep(0.005)


async def test_idle_streams_share_one_read_and_one_entry_is_read_once(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, shared = [], []
    read, read_entries = job_events._read, job_hub._read_entries
    monkeypatch.setattr(job_events, "_read", lambda *given: own.append(given) or read(*given))
    monkeypatch.setattr(job_hub, "_read_entries", lambda *given: shared.append(given) or read_entries(*given))
    job = await borrowed(job_of)
    streams = [await opened(job) for _ in range(READERS)]
    waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
    async with asyncio.timeout(30):
        while hub.streams < READERS:
            await asyncio.sleep(0.005)
    await polls(3)
    assert len(own) == READERS  # each read what was stored when it began, and nothing since
    assert shared == []
    held = await borrowed(claimed, job)
    await borrowed(report, held, "news")
    assert await asyncio.gather(*waiting) == [b'id: 1\nevent: chunk\ndata: "news"\n\n'] * READERS
    assert (len(own), len(shared)) == (READERS, 1)


async def test_a_stream_passes_all_entries_of_a_fast_job_in_order(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_hub, "BATCH", 3)
    monkeypatch.setattr(job_events, "BATCH", 3)
    held = await borrowed(claimed, await borrowed(job_of))
    await borrowed(report, held, 0)
    stream = await opened(held)
    frames = [await anext(stream)]
    await borrowed(report, held, *range(1, 20))
    assert await borrowed(leases.succeed, held, 7, {})
    frames += [frame async for frame in stream]
    assert frames[:-1] == [f"id: {n + 1}\nevent: chunk\ndata: {n}\n\n".encode() for n in range(20)]
    assert frames[-1].startswith(b"event: end\n")


async def test_a_stream_ends_with_an_event_after_its_lifetime(opened: Any, settings: Any) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "STREAM_LIFETIME": 0.05}
    held = await borrowed(claimed, await borrowed(job_of))
    await borrowed(report, held, "one")
    frames = [frame async for frame in await opened(held)]
    assert frames == [b'id: 1\nevent: chunk\ndata: "one"\n\n', b'event: close\ndata: {"reason":"lifetime"}\n\n']
    frames = [frame async for frame in await opened(held, **{"Last-Event-ID": "1"})]
    assert frames == [b'event: close\ndata: {"reason":"lifetime"}\n\n']


async def test_a_stream_ends_when_its_job_is_deleted(opened: Any) -> None:
    job = await borrowed(job_of)
    stream = await opened(job)
    rest = asyncio.ensure_future(anext(stream, None))
    async with asyncio.timeout(30):
        while not hub.streams:
            await asyncio.sleep(0.005)
    await borrowed(Job.objects.filter(pk=job.pk).delete)
    assert await asyncio.wait_for(rest, 30) is None


def fail_and_retry(held: Job) -> None:
    assert leases.fail(held, Transition("failed"), {"code": "adapter_error", "message": "", "details": {}}, {})
    control.retry(held.pk)


async def test_a_stream_follows_a_job_that_was_queued_again(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held = await borrowed(claimed, await borrowed(job_of))
    await borrowed(report, held, "first", "second")
    stream = await opened(held)
    assert b'"first"' in await anext(stream)
    assert b'"second"' in await anext(stream)
    rest = asyncio.ensure_future(anext(stream))
    async with asyncio.timeout(30):
        while not hub.streams:
            await asyncio.sleep(0.005)
    monkeypatch.setattr(job_hub, "TERMINAL", ())  # the hub looks again only after the job has been queued again
    await borrowed(fail_and_retry, held)
    again = await borrowed(claimed, held)
    await borrowed(report, again, "again")
    assert await asyncio.wait_for(rest, 30) == b'id: 1\nevent: chunk\ndata: "again"\n\n'

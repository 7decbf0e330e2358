"""Wait for the end of a job: `Job.wait()` in a thread, `Job.afinished()` on an event loop.

The row is read again at growing intervals. It is the only place where a job's end is certain to appear.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async
from django.db import connections

from snakepit.pools.models import schema
from snakepit.pools.models.states import QUEUED

if TYPE_CHECKING:
    from snakepit.pools.models.job import Job

FIRST, LONGEST = 0.02, 1.0  # seconds between two reads of the row
GROWTH = 1.5

run_here: Callable[[Job], None] | None = None  # in a test: runs a queued job in this process


def wait(job: Job, timeout: float | None) -> None:
    """Return once the job has ended; its fields are then current. Raises TimeoutError, after which it goes on."""
    pauses = _pauses(timeout)
    if _run_here(job):
        return
    while True:
        job.refresh_from_db()
        if job.ended:
            return
        _refuse_transaction(job)
        time.sleep(_next(pauses, job, timeout))


async def afinished(job: Job, timeout: float | None) -> None:
    """As `wait`, for an event loop."""
    pauses = _pauses(timeout)
    if run_here is not None and await sync_to_async(_run_here)(job):
        return
    while True:
        await job.arefresh_from_db()
        if job.ended:
            return
        await asyncio.sleep(_next(pauses, job, timeout))


def _run_here(job: Job) -> bool:
    """In a test, run the job; returns whether it has ended. One that stays queued would be waited for without end."""
    if run_here is None:
        return False
    run_here(job)
    job.refresh_from_db()
    if job.state == QUEUED:
        reason = (job.error or {}).get("message") or (
            "its command put it off" if job.snoozes else "no attempt could begin"
        )
        raise TimeoutError(f"job {job.pk} stays queued in this test: {reason}")
    return job.ended


def _refuse_transaction(job: Job) -> None:
    """Its message is sent on commit, so a wait before the commit would never end."""
    if connections[schema.alias()].in_atomic_block:
        raise RuntimeError(
            f"job {job.pk} cannot end while this transaction is open: call wait() after the transaction, "
            "or in a test use snakepit.testing.override_pools()"
        )


def _pauses(timeout: float | None) -> Iterator[float | None]:
    """The pauses between reads; None once the time is over. The last read comes when it is."""
    end = None if timeout is None else time.monotonic() + timeout
    pause = FIRST
    while True:
        left = pause if end is None else end - time.monotonic()
        yield min(pause, left) if left > 0 else None
        pause = min(LONGEST, pause * GROWTH)


def _next(pauses: Iterator[float | None], job: Job, timeout: float | None) -> float:
    pause = next(pauses)
    if pause is None:
        raise TimeoutError(f"job {job.pk} is {job.shown_state} after {timeout:g} s")
    return pause

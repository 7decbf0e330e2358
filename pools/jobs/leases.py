"""The writes of an attempt. Each is one UPDATE behind the fence: newest attempt, still running.

`Now()` is the database's clock: leases of different hosts are compared by one clock, on SQLite by that of this host.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.db import InterfaceError, OperationalError, close_old_connections, connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from snakepit.pools import conf
from snakepit.pools.jobs.arguments import storable
from snakepit.pools.jobs.policy import Verdict
from snakepit.pools.models import Job, JobAttempt, JobEntry
from snakepit.pools.models.states import QUEUED, RUNNING, SUCCEEDED

logger = logging.getLogger("snakepit.jobs")
RENEWALS = 3  # of a lease, in the time that it lasts
ALWAYS = Q()
DUE = Q(run_after__isnull=True) | Q(run_after__lte=Now())


def moment(seconds: float) -> Any:
    """So many seconds from now, by the database's clock."""
    return Now() + timedelta(seconds=seconds)


@contextmanager
def db_unit() -> Iterator[None]:
    """One unit of database work in a process that lives long: a connection that a restart broke is not met twice."""
    if connection.in_atomic_block:  # the caller's transaction: its connection is the caller's to close
        yield
        return
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


def patiently(work: Callable[[], Any], patience: float, stop: threading.Event | None = None) -> Any:
    """Do it as one unit, and again while the database is away. Only for work that may be done twice: it is fenced."""
    end, pause = time.monotonic() + patience, 0.1
    while True:
        try:
            with db_unit():
                return work()
        except (OperationalError, InterfaceError) as error:
            if time.monotonic() + pause > end or (stop is not None and stop.is_set()):
                raise
            logger.warning("the database is away, trying again: %s", error)
        (stop or threading.Event()).wait(pause)
        pause = min(pause * 2, 2.0)


def claim(job_id: Any, claimant: str, node: str) -> Job | None:
    """Take a job that waits and is due. Of many who try at the same time, one gets it."""
    waiting = Job.objects.filter(DUE, pk=job_id, state=QUEUED, cancel_requested=False)
    with transaction.atomic():
        taken = waiting.move(
            RUNNING,
            attempts=F("attempts") + 1,
            lease_until=moment(conf.current().jobs_lease),
            claimed_by=claimant[:200],
            started_at=Now(),
            progress=None,
            progress_message="",
        )
        if not taken:
            return None
        job = Job.objects.get(pk=job_id)
        assert job.started_at is not None
        JobAttempt.objects.create(
            job=job, number=job.attempts, claimed_by=job.claimed_by, node=node, started_at=job.started_at
        )
        return job


def renew(job: Job) -> bool:
    """Say that this attempt lives; False when it was overtaken."""
    held = Job.objects.held_by(job.pk, job.attempts)
    return bool(held.update(lease_until=moment(conf.current().jobs_lease)))


def look(job: Job) -> tuple[bool, bool]:
    """(whether this attempt still holds the job, whether it is to be cancelled)."""
    found = Job.objects.held_by(job.pk, job.attempts).values_list("cancel_requested", flat=True).first()
    return found is not None, bool(found)


def keep(job: Job, entries: list[tuple[str, Any]], progress: tuple[float, str] | None = None) -> bool:
    """Append what the job said, up to its bounds; False when this attempt was overtaken."""
    settings = conf.current()
    with transaction.atomic():
        held = Job.objects.held_by(job.pk, job.attempts)
        # First a write, which takes the lock: nobody else appends, and nobody takes the job over, until the commit.
        said = {"progress": progress[0], "progress_message": progress[1]} if progress else {}
        if not held.update(entry_count=F("entry_count"), **said):
            return False
        count, size, full = held.values_list("entry_count", "entry_bytes", "truncated").get()
        rows: list[JobEntry] = []
        for kind, data in entries:
            if full:
                break
            data = storable(data)
            cost = len(json.dumps(data))
            if count + 1 >= settings.jobs_entries or size + cost > settings.jobs_entry_bytes:
                kind, data, cost, full = "truncated", None, 0, True
            count, size = count + 1, size + cost
            rows.append(JobEntry(job_id=job.pk, seq=count, attempt=job.attempts, kind=kind, data=data))
        if rows:
            JobEntry.objects.bulk_create(rows)
            held.update(entry_count=count, entry_bytes=size, truncated=full)
    return True


def succeed(job: Job, value: Any, facts: dict[str, Any]) -> bool:
    """Write the result, once."""
    raw = isinstance(value, bytes)
    results: dict[str, Any] = {
        "result": None if raw or value is None else storable(value),
        "result_raw": value if raw else None,
    }
    return _end(job, Verdict(SUCCEEDED, counts=False), None, {"outcome": "succeeded", **facts}, **results, progress=1.0)


def fail(job: Job, verdict: Verdict, error: dict[str, Any] | None, facts: dict[str, Any]) -> bool:
    """Write a bad end, or that the job waits again."""
    return _end(job, verdict, error, {"error": error, **facts})


def free(job: Job, verdict: Verdict, error: dict[str, Any], facts: dict[str, Any]) -> bool:
    """The same for an attempt that fell silent, unless it has renewed its lease since somebody looked."""
    return _end(job, verdict, error, {"error": error, **facts}, silent=Q(lease_until__lt=Now()))


def _end(job: Job, verdict: Verdict, error: Any, facts: dict[str, Any], *, silent: Q = ALWAYS, **fields: Any) -> bool:
    with transaction.atomic():
        moved = Job.objects.filter(silent, pk=job.pk, attempts=job.attempts, state=RUNNING).move(
            verdict.state,
            lease_until=None,
            claimed_by="",
            error=error,
            failures=F("failures") + int(verdict.counts),
            deaths=F("deaths") + int(verdict.death),
            **((waiting(verdict.pause) if verdict.state == QUEUED else ended(job.retention)) | fields),
        )
        if moved:
            tries = JobAttempt.objects.filter(job_id=job.pk, number=job.attempts)
            tries.update(finished_at=Now(), **facts)
    return bool(moved)


def waiting(pause: float) -> dict[str, Any]:
    """The columns of a job that waits, for so long at least."""
    due = moment(pause)
    return {"queued_at": Now(), "run_after": due, "sent_at": due, "sends": 1, "finished_at": None, "expires_at": None}


def ended(retention: int) -> dict[str, Any]:
    """The columns of a job that has ended."""
    return {"finished_at": Now(), "expires_at": moment(retention)}

"""The database writes of an attempt. Each is one fenced UPDATE: it applies only to the newest, running attempt.

`Now()` is the database's clock, so that one clock decides for all hosts. On SQLite it is this host's clock.
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

from django.db import InterfaceError, OperationalError, close_old_connections, connections, transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from snakepit.pools import conf
from snakepit.pools.jobs.arguments import storable
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.models import Job, JobAttempt, JobEntry, schema
from snakepit.pools.models.states import QUEUED, RUNNING, SUCCEEDED

logger = logging.getLogger("snakepit.jobs")
RENEWALS = 3  # renewals per lease duration
ALWAYS = Q()
DUE = Q(run_after__isnull=True) | Q(run_after__lte=Now())


def moment(seconds: float) -> Any:
    """The database's current time plus `seconds`, as an expression."""
    return Now() + timedelta(seconds=seconds)


@contextmanager
def db_unit() -> Iterator[None]:
    """One unit of database work in a long-lived process: broken connections are closed before and after it."""
    if connections[schema.alias()].in_atomic_block:  # the caller's transaction needs its connection
        yield
        return
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


def patiently(work: Callable[[], Any], patience: float, stop: threading.Event | None = None) -> Any:
    """Run `work` as one unit, and retry while the database is unavailable. `work` must be fenced, as it may repeat."""
    end, pause = time.monotonic() + patience, 0.1
    while True:
        try:
            with db_unit():
                return work()
        except (OperationalError, InterfaceError) as error:
            if time.monotonic() + pause > end or (stop is not None and stop.is_set()):
                raise
            logger.warning("the database is unavailable, retrying: %s", error)
        (stop or threading.Event()).wait(pause)
        pause = min(pause * 2, 2.0)


def claim(job_id: Any, claimant: str, node: str) -> Job | None:
    """Claim a queued job that is due. Of concurrent claims exactly one succeeds."""
    waiting = Job.objects.filter(DUE, pk=job_id, state=QUEUED, cancel_requested=False)
    with transaction.atomic(using=schema.alias()):
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
    """Extend the lease of this attempt; False if a newer attempt has the job."""
    claimed = Job.objects.claimed_as(job.pk, job.attempts)
    return bool(claimed.update(lease_until=moment(conf.current().jobs_lease)))


def check(job: Job) -> tuple[bool, bool]:
    """Returns (whether this attempt still has the job, whether its cancellation is requested)."""
    found = Job.objects.claimed_as(job.pk, job.attempts).values_list("cancel_requested", flat=True).first()
    return found is not None, bool(found)


def append_entries(job: Job, entries: list[tuple[str, Any]], progress: tuple[float, str] | None = None) -> bool:
    """Append output of the job, up to its limits; False if a newer attempt has the job."""
    settings = conf.current()
    with transaction.atomic(using=schema.alias()):
        claimed = Job.objects.claimed_as(job.pk, job.attempts)
        # The write comes first, because it locks the row: no other attempt can append or claim until the commit.
        changed = {"progress": progress[0], "progress_message": progress[1]} if progress else {}
        if not claimed.update(entry_count=F("entry_count"), **changed):
            return False
        count, size, full = claimed.values_list("entry_count", "entry_bytes", "truncated").get()
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
            claimed.update(entry_count=count, entry_bytes=size, truncated=full)
    return True


def succeed(job: Job, value: Any, facts: dict[str, Any]) -> bool:
    """Write the result; False if a newer attempt has the job."""
    raw = isinstance(value, bytes)
    results: dict[str, Any] = {
        "result": None if raw or value is None else storable(value),
        "result_raw": value if raw else None,
    }
    transition = Transition(SUCCEEDED, counts=False)
    return _end(job, transition, None, {"outcome": "succeeded", **facts}, **results, progress=1.0)


def fail(job: Job, transition: Transition, error: dict[str, Any] | None, facts: dict[str, Any]) -> bool:
    """Write a failed end, or queue the job again."""
    return _end(job, transition, error, {"error": error, **facts})


def free(job: Job, transition: Transition, error: dict[str, Any], facts: dict[str, Any]) -> bool:
    """As `fail`, for an attempt with an expired lease, unless it has renewed the lease meanwhile."""
    return _end(job, transition, error, {"error": error, **facts}, silent=Q(lease_until__lt=Now()))


def _end(
    job: Job, transition: Transition, error: Any, facts: dict[str, Any], *, silent: Q = ALWAYS, **fields: Any
) -> bool:
    with transaction.atomic(using=schema.alias()):
        moved = Job.objects.filter(silent, pk=job.pk, attempts=job.attempts, state=RUNNING).move(
            transition.state,
            lease_until=None,
            claimed_by="",
            error=error,
            failures=F("failures") + int(transition.counts),
            deaths=F("deaths") + int(transition.death),
            **((waiting(transition.pause) if transition.state == QUEUED else ended(job.retention)) | fields),
        )
        if moved:
            tries = JobAttempt.objects.filter(job_id=job.pk, number=job.attempts)
            tries.update(finished_at=Now(), **facts)
    return bool(moved)


def waiting(pause: float) -> dict[str, Any]:
    """The columns of a job that is queued for at least `pause` seconds."""
    due = moment(pause)
    return {"queued_at": Now(), "run_after": due, "sent_at": due, "sends": 1, "finished_at": None, "expires_at": None}


def ended(retention: int) -> dict[str, Any]:
    """The columns of a job that has ended."""
    return {"finished_at": Now(), "expires_at": moment(retention)}

"""The database writes of an attempt. Each is one fenced UPDATE: it applies only to the newest, running attempt.

Claims are in `claims`, ends in `ends`.
"""

from __future__ import annotations

import functools
import json
import logging
import operator
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import InterfaceError, OperationalError, close_old_connections, connections, transaction
from django.db.models import F, Q

from snakepit.pools import conf
from snakepit.pools.jobs import ends
from snakepit.pools.jobs.arguments import storable
from snakepit.pools.jobs.claims import DUE as DUE
from snakepit.pools.jobs.claims import claim as claim
from snakepit.pools.jobs.columns import ended as ended
from snakepit.pools.jobs.columns import moment as moment
from snakepit.pools.jobs.columns import waiting as waiting
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.models import Job, JobEntry, schema
from snakepit.pools.models.job import JobQuerySet
from snakepit.pools.models.states import RUNNING, SUCCEEDED

logger = logging.getLogger("snakepit.jobs")
RENEWALS = 3  # renewals per lease duration


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


def with_retries(work: Callable[[], Any], patience: float, stop: threading.Event | None = None) -> Any:
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


def renew(jobs: Sequence[Job]) -> int:
    """Extend the leases of these attempts; returns how many are still the newest ones, and run."""
    return _claimed(jobs).update(lease_until=moment(conf.current().jobs_lease))


def check(jobs: Sequence[Job]) -> dict[tuple[Any, int], bool]:
    """The attempts that are still the newest ones, and run, each with whether its cancellation is requested."""
    found = _claimed(jobs).values_list("pk", "attempts", "cancel_requested")
    return {(job_id, number): cancel for job_id, number, cancel in found}


def _claimed(jobs: Sequence[Job]) -> JobQuerySet:
    """The rows of these attempts: most have the same number."""
    numbers: dict[int, list[Any]] = {}
    for job in jobs:
        numbers.setdefault(job.attempts, []).append(job.pk)
    mine = [Q(attempts=number, pk__in=ids) for number, ids in numbers.items()]
    return Job.objects.filter(functools.reduce(operator.or_, mine), state=RUNNING)


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
    return bool(ends.write([success(job, value, facts)]))


def success(job: Job, value: Any, facts: dict[str, Any]) -> ends.End:
    """The end of an attempt whose command returned `value`."""
    raw = isinstance(value, bytes)
    return ends.End(
        job,
        Transition(SUCCEEDED, counts=False),
        result=None if raw or value is None else storable(value),
        result_raw=value if raw else None,
        facts={"outcome": "succeeded", **facts},
    )


def fail(job: Job, transition: Transition, error: dict[str, Any] | None, facts: dict[str, Any]) -> bool:
    """Write a failed end, or queue the job again."""
    return bool(ends.write([ends.End(job, transition, error, facts={"error": error, **facts})]))


def free(job: Job, transition: Transition, error: dict[str, Any], facts: dict[str, Any]) -> bool:
    """As `fail`, for an attempt with an expired lease, unless it has renewed the lease meanwhile."""
    return bool(ends.write([ends.End(job, transition, error, facts={"error": error, **facts}, expired=True)]))

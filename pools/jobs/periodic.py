"""Submit the jobs of schedules that are due, on each reconcile. Any number of processes may do it at the same time.

One transaction moves the schedule to its next time, adds the run and stores the job. The update names the time that it
replaces, and a run is unique by schedule and nominal time: of two schedulers, one makes the run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db import Error, IntegrityError, transaction
from django.db.models.functions import Now

from snakepit.pools import conf
from snakepit.pools.broker.errors import BadRequest, BrokerError, LimitReached, QueueFull
from snakepit.pools.jobs.arguments import store
from snakepit.pools.jobs.options import JobOptions
from snakepit.pools.jobs.submission import enqueue
from snakepit.pools.jobs.target import JobTarget
from snakepit.pools.models import Job, PeriodicJob, PeriodicRun, schema
from snakepit.pools.models.moments import MomentField, utc_now
from snakepit.pools.models.periodic import KEPT_RUNS, Misfire, tags_of
from snakepit.pools.models.recurrence import occasion

logger = logging.getLogger("snakepit.jobs")
BATCH = 200  # schedules of one tick
LATE = 60.0  # seconds after which a run counts as missed, at least


def run_due() -> int:
    """Submit the jobs of all schedules that are due; returns their number."""
    due = PeriodicJob.objects.filter(enabled=True, next_run__lte=Now()).order_by("next_run")
    # One clock for all schedulers: with its own, a host that is ahead takes a run for missed, or makes it early.
    return sum(_attempt(row, row.now) for row in due.annotate(now=Now(output_field=MomentField()))[:BATCH])


def run_now(periodic: PeriodicJob) -> Job:
    """Submit its job once, beside the schedule."""
    nominal = utc_now()
    wanted = columns(periodic, nominal)
    with transaction.atomic(using=schema.alias()):
        job = enqueue(wanted)
        PeriodicRun.objects.create(periodic=periodic, nominal=nominal, job=job.pk)
        PeriodicJob.objects.filter(pk=periodic.pk).update(last_job=job.pk, problem="")
    return job


def columns(periodic: PeriodicJob, nominal: datetime) -> dict[str, Any]:
    """The columns of its job, checked as a submission is: options, pool, command and arguments."""
    options = JobOptions(
        priority=periodic.priority,
        timeout=periodic.timeout,
        expires=None if periodic.expires_after is None else nominal + timedelta(seconds=periodic.expires_after),
        max_attempts=periodic.max_attempts,
        backoff=periodic.backoff,
        retry=periodic.retry,
        tags=tags_of(periodic),
        owner=periodic.owner,
        retention=periodic.retention,
    ).columns()
    arguments = store(periodic.arguments)
    target = JobTarget(periodic.pool, periodic.command)
    target.check(arguments)
    own = {"pool": periodic.pool, "command": periodic.command, "arguments": arguments, "hooked": target.hooked}
    return {**options, **own, "limit_key": target.limit_key(arguments), "idempotency_key": ""}


def problems(periodic: PeriodicJob) -> dict[str, str]:
    """What would refuse its job, by field; empty if nothing does. For forms and requests."""
    try:
        columns(periodic, utc_now())
    except BrokerError as error:
        field = _field_of(error)
        return {field: error.message.removeprefix(f"{field}: ")}
    return {}


def _field_of(error: BrokerError) -> str:
    if error.code in ("pool_unknown", "command_unknown"):
        return error.code.removesuffix("_unknown")
    name = error.message.partition(":")[0]
    fields = {field.name for field in PeriodicJob._meta.concrete_fields}
    return name if isinstance(error, BadRequest) and name in fields else "arguments"


def _attempt(row: PeriodicJob, now: datetime) -> bool:
    """Run one schedule. An error of one must not stop the others."""
    try:
        return _run(row, now)
    except (QueueFull, LimitReached) as error:  # a later tick tries again
        PeriodicJob.objects.filter(pk=row.pk).update(problem=error.message[:500])
        logger.warning("periodic job %s waits: %s", row.name, error.message)
    except Error:
        raise
    except Exception:
        logger.exception("periodic job %s cannot run", row.name)
    return False


def late_after() -> timedelta:
    """How long after its time a run counts as missed."""
    return timedelta(seconds=max(LATE, 2 * conf.current().reconcile_interval))


def _run(row: PeriodicJob, now: datetime) -> bool:
    assert row.next_run is not None
    found = occasion(row.recurrence, row.next_run, now, late_after() if row.misfire == Misfire.SKIP else None)
    wanted: dict[str, Any] | None = None
    problem = ""
    if found.nominal is not None:
        try:  # before the transaction: the check may wait for the broker
            wanted = columns(row, found.nominal)
        except BrokerError as error:
            problem = error.message[:500]
            logger.warning("periodic job %s has no job for %s: %s", row.name, found.nominal, problem)
    else:
        logger.warning("periodic job %s missed its run of %s", row.name, row.next_run)
    changed: dict[str, Any] = {"next_run": found.following, "problem": problem}
    changed |= {"last_run": found.nominal} if found.nominal else {}
    with transaction.atomic(using=schema.alias()):
        same = PeriodicJob.objects.filter(pk=row.pk, enabled=True, next_run=row.next_run, planned=row.planned)
        if not same.update(**changed) or found.nominal is None:
            return False
        run = _add(row, found.nominal, problem)
        if run is None or wanted is None:
            return False
        job = enqueue(wanted)
        PeriodicRun.objects.filter(pk=run.pk).update(job=job.pk)
        PeriodicJob.objects.filter(pk=row.pk).update(last_job=job.pk)
    return True


def _add(row: PeriodicJob, nominal: datetime, problem: str) -> PeriodicRun | None:
    """Add the run; None if it exists: the clock or the schedule was set back to a time that has run."""
    try:
        with transaction.atomic(using=schema.alias()):
            run = PeriodicRun.objects.create(periodic=row, nominal=nominal, problem=problem)
    except IntegrityError:
        return None
    for old in _old_runs(row):
        PeriodicRun.objects.filter(pk=old).delete()
    return run


def _old_runs(row: PeriodicJob) -> Iterator[int]:
    yield from row.runs.order_by("-nominal").values_list("pk", flat=True)[KEPT_RUNS : KEPT_RUNS + 10]

"""Cancel, retry and clone jobs. A typed error explains why an action is impossible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import transaction

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.jobs import ends, leases, messages
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.jobs.signals import emit_finished, emit_requeued
from snakepit.pools.jobs.submission import enqueue
from snakepit.pools.models import Job, JobEntry, schema
from snakepit.pools.models.states import CANCELLED, QUEUED, RUNNING, UNSUCCESSFUL

COPIED = (
    "pool",
    "command",
    "arguments",
    "priority",
    "timeout",
    "max_attempts",
    "backoff",
    "retry",
    "tags",
    "retention",
    "hooked",
)


def cancel(job_id: Any) -> Job:
    """Cancel a job: immediately if it is queued, within two seconds if it runs. An ended job stays unchanged."""
    # The second update catches a job that is claimed between the two, the next round one that is requeued.
    for _ in range(2):
        job = Job.objects.get(pk=job_id)
        end = ends.End(job, Transition(CANCELLED, counts=False), job.error, source=QUEUED)
        if job.state == QUEUED and ends.write([end]):
            transaction.on_commit(lambda: emit_finished(job_id), using=schema.alias(), robust=True)
            break
        if Job.objects.filter(pk=job_id, state=RUNNING).update(cancel_requested=True):
            break
    return Job.objects.get(pk=job_id)


def retry(job_id: Any) -> Job:
    """Queue a job again after it ended without success: the same row, with a new budget of attempts."""
    with transaction.atomic(using=schema.alias()):
        again = requeue([job_id])
        job = Job.objects.get(pk=job_id)
        if not again:
            raise BadRequest(
                f"The job is {job.state}; only a job that ended without success can be retried. Clone it instead.",
                details={"state": job.state},
            )
        transaction.on_commit(lambda: _send(job), using=schema.alias(), robust=True)
    return job


def requeue(job_ids: Sequence[Any]) -> frozenset[Any]:
    """Queue those jobs again that ended without success, in the transaction of the caller; returns their ids."""
    again = Job.objects.filter(pk__in=job_ids, state__in=UNSUCCESSFUL).move(
        QUEUED,
        **leases.waiting(0.0),
        failures=0,
        deaths=0,
        snoozes=0,
        begun=False,
        expires=None,
        cancel_requested=False,
        error=None,
        deadline=None,
        progress=None,
        progress_message="",
        entry_count=0,
        entry_bytes=0,
        truncated=False,
    )
    if not again:
        return frozenset()
    queued = Job.objects.filter(pk__in=job_ids, state=QUEUED)
    JobEntry.objects.filter(job_id__in=queued.values("pk")).delete()
    return frozenset(queued.values_list("pk", flat=True))


def clone(job_id: Any, owner: str = "") -> Job:
    """Submit a new job with the same command, arguments and options."""
    job = Job.objects.get(pk=job_id)
    wanted = {name: getattr(job, name) for name in COPIED}
    return enqueue({**wanted, "owner": owner or job.owner, "idempotency_key": ""})


def _send(job: Job) -> None:
    messages.send(job.pk, messages.queue_of(job.pool))
    emit_requeued(job.pk)

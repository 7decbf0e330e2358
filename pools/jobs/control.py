"""Cancel, retry and clone jobs. A typed error explains why an action is impossible."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.broker.spec import ON_FAILURE
from snakepit.pools.jobs import after_end, ends, leases, limits, messages, workflows
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.jobs.predecessors import id_of
from snakepit.pools.jobs.signals import emit_finished, emit_requeued
from snakepit.pools.jobs.submission import enqueue
from snakepit.pools.jobs.target import JobTarget
from snakepit.pools.models import Job, JobEdge, JobEntry, schema
from snakepit.pools.models.states import BLOCKED, CANCELLED, QUEUED, RUNNING, UNSUCCESSFUL, WAITING

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


RENEWED: dict[str, Any] = {
    "failures": 0,
    "deaths": 0,
    "snoozes": 0,
    "begun": False,
    "expires": None,
    "cancel_requested": False,
    "error": None,
    "deadline": None,
    "progress": None,
    "progress_message": "",
    "entry_count": 0,
    "entry_bytes": 0,
    "truncated": False,
}


def cancel(job: Job | UUID | str) -> Job:
    """Cancel a job: immediately if it is queued, within two seconds if it runs. An ended job stays unchanged."""
    job_id = id_of("job", job)
    # The second update catches a job that is claimed between the two, the next rounds one that is released or requeued.
    for _ in range(3):
        row = _read(job_id)
        end = ends.End(row, Transition(CANCELLED, counts=False), row.error, source=row.state)
        if row.state in WAITING and ends.write([end]):
            transaction.on_commit(lambda: emit_finished(job_id), using=schema.alias(), robust=True)
            break
        if Job.objects.filter(pk=job_id, state=RUNNING).update(cancel_requested=True):
            break
    return _read(job_id)


def retry(job: Job | UUID | str) -> Job:
    """Queue a job again after it ended without success: the same row, with a new budget of attempts."""
    job_id = id_of("job", job)
    with transaction.atomic(using=schema.alias()):
        again = requeue([job_id])
        row = _read(job_id)
        if not again and (bad := workflows.refusal(row)) and row.ended:
            raise BadRequest(f"{bad}, and this job waits for its success. Retry that one first.")
        if not again:
            raise BadRequest(
                f"The job is {row.state}; only a job that ended without success can be retried. Clone it instead.",
                details={"state": row.state},
            )
        transaction.on_commit(lambda: _send(row), using=schema.alias(), robust=True)
    return row


def requeue(job_ids: Sequence[Any]) -> frozenset[Any]:
    """Queue those jobs again that ended without success, in the transaction of the caller; returns their ids.

    A job that waits for others is blocked again until they have ended.
    """
    ended = Job.objects.filter(pk__in=job_ids, state__in=UNSUCCESSFUL)
    alone = ~Exists(JobEdge.objects.filter(job=OuterRef("pk")))
    again: set[Any] = set()
    if ended.filter(alone).move(QUEUED, **leases.waiting(0.0), **RENEWED):  # a write first: see `bulk`
        again |= set(Job.objects.filter(alone, pk__in=job_ids, state=QUEUED).values_list("pk", flat=True))
    for job in ended.filter(~alone).order_by("pk").select_for_update(no_key=True):
        if not workflows.refusal(job):
            Job.objects.filter(pk=job.pk).move(BLOCKED, **leases.waiting(0.0), **RENEWED)
            if not workflows.waits(job):
                workflows.queue(job)
            again.add(job.pk)
    JobEntry.objects.filter(job_id__in=again).delete()
    return frozenset(again)


def clone(job: Job | UUID | str, owner: str = "") -> Job:
    """Submit a new job with the same command, arguments and options, if the pool's workers would take it now."""
    row = _read(id_of("job", job))
    if row.command != ON_FAILURE:  # of a hook's own job, only the pool can be gone
        JobTarget(row.pool, row.command).check(row.arguments)
    wanted = {name: getattr(row, name) for name in COPIED}
    wanted["limit_key"] = limits.current_key(row.pool, row.arguments)
    return enqueue({**wanted, "owner": owner or row.owner, "idempotency_key": ""})


def _read(job_id: UUID) -> Job:
    """The row as it is now."""
    if (job := Job.objects.filter(pk=job_id).first()) is None:
        raise BadRequest(f"job: no job has the id {job_id}", details={"job": str(job_id)})
    return job


def _send(job: Job) -> None:
    messages.send(job.pk, messages.queue_of(job.pool))
    after_end.announce([partial(emit_requeued, job.pk)])

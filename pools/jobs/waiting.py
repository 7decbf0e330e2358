"""What a job waits for, for the pages and answers that show one job."""

from __future__ import annotations

from snakepit.pools.jobs import limits
from snakepit.pools.jobs.target import definition
from snakepit.pools.models import Job, JobEdge
from snakepit.pools.models.states import ACTIVE, BLOCKED, QUEUED


def explain(job: Job) -> Job:
    """Set `waits_for` and `depends_on` of a job, and return it."""
    edges = JobEdge.objects.filter(job=job).order_by("pk")
    job.depends_on = tuple(dict.fromkeys(str(one) for one in edges.values_list("needs_id", flat=True)))
    job.waits_for = _predecessors(job) if job.state == BLOCKED else _pool(job) or limits.reason(job)
    return job


def _pool(job: Job) -> str:
    """Why no job of its pool starts; empty if jobs of the pool start, or if this one does not wait for them."""
    if job.shown_state != QUEUED:
        return ""
    pool = definition(job.pool)
    if pool is None:
        return f"waits for the pool {job.pool}, which does not exist: add the pool, or cancel the job"
    if not pool.enabled:
        return f"waits for the pool {job.pool}, which is disabled: enable the pool, or cancel the job"
    if getattr(pool, "queue_paused", False):
        return f"waits because the jobs of the pool {job.pool} are paused"
    return ""


def _predecessors(job: Job) -> str:
    active = JobEdge.objects.filter(job=job, needs__state__in=ACTIVE).order_by()
    count = active.values("needs").distinct().count()
    return f"waits for the end of {count} {'job' if count == 1 else 'jobs'}" if count else "is about to be released"

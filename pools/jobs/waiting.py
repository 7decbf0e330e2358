"""What a job waits for, for the pages and answers that show one job."""

from __future__ import annotations

from snakepit.pools.jobs import limits
from snakepit.pools.models import Job, JobEdge
from snakepit.pools.models.states import ACTIVE, BLOCKED


def explain(job: Job) -> Job:
    """Set `waits_for` and `depends_on` of a job, and return it."""
    edges = JobEdge.objects.filter(job=job).order_by("pk")
    job.depends_on = tuple(dict.fromkeys(str(one) for one in edges.values_list("needs_id", flat=True)))
    job.waits_for = _predecessors(job) if job.state == BLOCKED else limits.reason(job)
    return job


def _predecessors(job: Job) -> str:
    active = JobEdge.objects.filter(job=job, needs__state__in=ACTIVE).order_by()
    count = active.values("needs").distinct().count()
    return f"waits for the end of {count} {'job' if count == 1 else 'jobs'}" if count else "is about to be released"

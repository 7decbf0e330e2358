"""Reads what only the database has for the overview, in a few queries: silent nodes, quarantined, overdue and
ended jobs, whether there are jobs, soft limits."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Count, Max, Min, Q

from snakepit.pools.dashboard.alerts import OVERDUE_COUNTED, StoredState
from snakepit.pools.jobs.leases import db_unit
from snakepit.pools.jobs.limits import holding_pools
from snakepit.pools.models import Job, Node, Pool
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.states import FAILED, LOST, QUARANTINED, QUEUED

LATELY = 3600.0  # seconds for which jobs that failed or were lost need attention
OVERDUE = 60.0  # seconds that a due job may wait for a Celery worker
GROUPS = 5  # causes that are shown
SILENT = 20.0  # seconds without an update; the recorder writes every five


def read_stored_state() -> StoredState:
    with db_unit():
        before = utc_now() - timedelta(seconds=SILENT)
        silent = Node.objects.filter(stopped=False, seen_at__lt=before).values_list("name", "seen_at")
        jobs = Job.objects.filter(state=QUARANTINED).aggregate(count=Count("pk"), newest=Max("finished_at"))
        lately = Job.objects.filter(state__in=(FAILED, LOST), finished_at__gte=utc_now() - timedelta(seconds=LATELY))
        groups = lately.values_list("state", "error__code").annotate(count=Count("pk"), first=Min("finished_at"))
        late = utc_now() - timedelta(seconds=OVERDUE)
        due = Job.objects.filter(Q(run_after__isnull=True) | Q(run_after__lt=late), state=QUEUED, queued_at__lt=late)
        due = due.exclude(pool__in=Pool.objects.filter(queue_paused=True).values("name"))  # they wait on purpose
        due = due.exclude(pool__in=holding_pools())
        overdue = list(due.order_by("queued_at").values_list("queued_at", flat=True)[: OVERDUE_COUNTED + 1])
        limits = Pool.objects.filter(memory_soft_mb__isnull=False).values_list("name", "memory_soft_mb")
        return StoredState(
            silent_nodes=tuple((name, seen.timestamp()) for name, seen in silent),
            quarantined=jobs["count"],
            quarantined_since=jobs["newest"].timestamp() if jobs["newest"] else 0.0,
            ended_jobs=tuple(
                (state, str(code or "unknown"), count, first.timestamp())
                for state, code, count, first in groups.order_by("-count")[:GROUPS]
            ),
            overdue=len(overdue),
            overdue_since=overdue[0].timestamp() if overdue else 0.0,
            uses_jobs=Job.objects.exists(),
            soft_limits=dict(limits),
        )

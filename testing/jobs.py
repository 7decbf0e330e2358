"""Jobs of a test: they run in its process, through the same attempts, rows and signals as in a Celery worker."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import connections, models

from snakepit.pools.jobs import commands, eager, in_process, runner
from snakepit.pools.models import Job, Pool, job_wait, schema
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.states import QUEUED

if TYPE_CHECKING:
    from snakepit.pools.broker.spec import PoolSpec
    from snakepit.testing.pools import Pools

RECEIVER = "snakepit.testing"
MOST_ROUNDS = 1000  # of jobs that submit jobs, before `run_jobs` gives up

# Without patience: a broker that the test made unreachable does not come back while the attempt waits.
_attempt = functools.partial(runner.run_one, patience=0.0)


class TestRunner:
    """Runs jobs immediately, or leaves them to `run_jobs`."""

    __test__ = False  # no test class of pytest

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    def spec(self, pool: str) -> PoolSpec | None:
        return self._pools.definitions.spec(pool)

    def runs_now(self) -> bool:
        """Whether the project is in no transaction of its own. The one that a TestCase opens never commits."""
        blocks = connections[schema.alias()].atomic_blocks
        return all(getattr(block, "_from_testcase", False) for block in blocks)

    def send(self, job_id: str, delay: float) -> bool:
        if self._pools.jobs == "manual":
            return True
        return _at_once(job_id)


def use(pools: Pools | None) -> None:
    """Have jobs run with these pools; None: in Celery again."""
    commands.cache.clear()
    in_process.use(None if pools is None else TestRunner(pools))
    job_wait.run_here = None if pools is None else _run
    models.signals.post_save.disconnect(sender=Pool, dispatch_uid=RECEIVER)
    if pools is not None:
        models.signals.post_save.connect(pools.definitions.keep_row, sender=Pool, dispatch_uid=RECEIVER)


def run_queued(*, scheduled: bool = False) -> list[Job]:
    """Run queued jobs, the urgent ones first, until none is due. A job that no broker accepts runs once."""
    ran: dict[UUID, None] = {}
    for _ in range(MOST_ROUNDS):
        waiting = Job.objects.filter(state=QUEUED).exclude(pk__in=list(ran))
        if not scheduled:
            waiting = waiting.filter(models.Q(run_after__isnull=True) | models.Q(run_after__lte=utc_now()))
        found = list(waiting.order_by("-priority", "id").values_list("pk", flat=True))
        if not found:
            break
        for job_id in found:
            ran[job_id] = None
            _run_now(job_id)
    else:
        raise AssertionError(f"jobs submit new jobs without end: {MOST_ROUNDS} rounds have run")
    rows = Job.objects.in_bulk(list(ran))
    return [rows[job_id] for job_id in ran if job_id in rows]


def _run(job: Job) -> None:
    if Job.objects.filter(pk=job.pk, state=QUEUED).exists():
        _run_now(job.pk)


def _run_now(job_id: UUID) -> None:
    Job.objects.filter(pk=job_id, state=QUEUED).update(run_after=None)
    _at_once(str(job_id))


def _at_once(job_id: str) -> bool:
    ended = eager.run(_attempt, job_id, pauses=False)
    if not ended:  # it is due again immediately, and not after a pause
        Job.objects.filter(pk=job_id, state=QUEUED).update(run_after=None)
    return ended

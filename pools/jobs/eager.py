"""Run a job in the process that submits it, for Celery's `task_always_eager` and for tests.

Celery ignores the setting for `send_task`, and no worker would read the message. The attempt is the same as in a
Celery worker and calls the same broker. Only the pauses between attempts are waited for here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from snakepit.pools.broker.errors import BrokerUnreachable
from snakepit.pools.models import Job
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.states import QUEUED

logger = logging.getLogger("snakepit.jobs")
PATIENCE = 1.0  # seconds that an attempt waits for a broker to accept its call: a web request waits with it
USE = "start a broker with `snakepit broker`, or use snakepit.testing.override_pools() in tests"
LONGEST_PAUSE = 30.0  # seconds between two attempts that this process waits; `reconcile` handles longer pauses

_running = threading.local()


def run(attempt: Callable[[str], str], job_id: str, *, pauses: bool = True) -> bool:
    """Make attempts, which return the job's state, until it ends. False if no broker accepts its call: it stays queued.

    Without `pauses`, the next attempt is due immediately. A job that its command put off stays scheduled then.
    """
    running: set[str] = _running.__dict__.setdefault("ids", set())
    if job_id in running:  # the attempt queues its job again; the loop below repeats it
        return True
    running.add(job_id)
    try:
        return _attempts(attempt, job_id, pauses)
    finally:
        running.discard(job_id)


def is_running(job_id: str) -> bool:
    """Whether this thread runs the job eagerly."""
    return job_id in _running.__dict__.get("ids", ())


def _attempts(attempt: Callable[[str], str], job_id: str, pauses: bool) -> bool:
    failures = snoozes = 0
    while attempt(job_id) == QUEUED:
        job = Job.objects.get(pk=job_id)
        pause = max(0.0, (job.run_after - utc_now()).total_seconds()) if job.run_after else 0.0
        snoozed, snoozes = job.snoozes > snoozes, job.snoozes
        if snoozed and not pauses:
            return True
        if (job.failures <= failures and not snoozed) or (pauses and pause > LONGEST_PAUSE):
            unreached = (job.error or {}).get("code") == BrokerUnreachable.code
            fix = f"; {USE}" if unreached and pauses else ""
            logger.warning("job %s stays queued after an eager attempt: %s%s", job_id, _reason(job), fix)
            return False
        failures = job.failures
        if pauses:
            threading.Event().wait(pause)
        else:
            Job.objects.filter(pk=job_id, state=QUEUED).update(run_after=None)
    return True


def _reason(job: Job) -> str:
    return str((job.error or {}).get("message") or "its next attempt is due later")

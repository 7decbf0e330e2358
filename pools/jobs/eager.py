"""Run a job in the process that submits it, for Celery's `task_always_eager`.

Celery ignores the setting for `send_task`, and no worker would read the message. The attempt is the same as in a
Celery worker and calls the same broker. Only the pauses between attempts are waited for here.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from snakepit.pools.models import Job
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.states import QUEUED

logger = logging.getLogger("snakepit.jobs")
LONGEST_PAUSE = 30.0  # seconds between two attempts that this process waits; `reconcile` handles longer pauses

_running = threading.local()


def run(task: Any, job_id: str) -> bool:
    """Run the task until the job ends. False if the job stays queued, because no broker accepts its call."""
    running: set[str] = _running.__dict__.setdefault("ids", set())
    if job_id in running:  # the attempt queues its job again; the loop below repeats it
        return True
    running.add(job_id)
    try:
        return _attempts(task, job_id)
    finally:
        running.discard(job_id)


def _attempts(task: Any, job_id: str) -> bool:
    failures = 0
    while task.apply(args=[job_id], throw=True).result == QUEUED:
        job = Job.objects.get(pk=job_id)
        pause = max(0.0, (job.run_after - utc_now()).total_seconds()) if job.run_after else 0.0
        if job.failures <= failures or pause > LONGEST_PAUSE:
            logger.warning("job %s stays queued after an eager attempt: %s", job_id, _reason(job))
            return False
        failures = job.failures
        threading.Event().wait(pause)
    return True


def _reason(job: Job) -> str:
    return str((job.error or {}).get("message") or "its next attempt is due later")

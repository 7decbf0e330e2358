"""Django signals of jobs. Receivers get `job` (a Job). Exceptions of receivers are logged and change nothing.

job_submitted   in the process that submitted it, after the commit
job_started     in the Celery worker, at the start of each attempt
job_progressed  in the Celery worker: also `fraction` and `message`
job_requeued    in the process that queued it again: after a failed attempt, or on the order of an operator
job_finished    in the process that wrote the end: the Celery worker of the attempt or of the reconcile task, or the
                process that cancelled a queued job
"""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

from snakepit.pools.models import Job

logger = logging.getLogger("snakepit.jobs")

job_submitted = Signal()
job_started = Signal()
job_progressed = Signal()
job_requeued = Signal()
job_finished = Signal()


def emit(signal: Signal, job: Job, **facts: Any) -> None:
    for receiver, answer in signal.send_robust(Job, job=job, **facts):
        if isinstance(answer, Exception):
            logger.error("%s raised on job %s", receiver, job.pk, exc_info=answer)


def emit_finished(job_id: Any) -> None:
    """Send `job_finished` with the current row. Without receivers, the row is not read."""
    _emit_current(job_finished, job_id)


def emit_requeued(job_id: Any) -> None:
    """Send `job_requeued` with the current row. Without receivers, the row is not read."""
    _emit_current(job_requeued, job_id)


def _emit_current(signal: Signal, job_id: Any) -> None:
    if signal.receivers and (job := Job.objects.filter(pk=job_id).first()):
        emit(signal, job)

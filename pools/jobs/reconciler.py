"""What beat does for jobs: reconcile and prune. Each tick may come twice, late, or in two processes at once."""

from __future__ import annotations

import logging
import math
import time
from datetime import timedelta
from typing import Any

from django.db import connection
from django.db.models import F, Q
from django.db.models.functions import Now

from snakepit.pools import conf
from snakepit.pools.jobs import leases, messages
from snakepit.pools.jobs.policy import Ending, Rules, Verdict, judge
from snakepit.pools.jobs.signals import tell_finished
from snakepit.pools.models import Job
from snakepit.pools.models.states import CANCELLED, FAILED, QUEUED, RUNNING, TERMINAL

logger = logging.getLogger("snakepit.jobs")
BATCH = 500  # rows that one tick takes on of each kind
JUMP = 5.0  # seconds that two clocks may drift apart between two ticks before it is a jump
SENDS_COUNTED = 3  # each message that found no taker doubles the wait for the next, up to this


def reconcile() -> dict[str, int]:
    """Free what nobody holds any more, end what is too late, and send again what nobody took."""
    lease = conf.current().jobs_lease
    mistrusted = look_at_clock()
    _mend_a_clock_that_went_back(lease)
    return {"freed": 0 if mistrusted else _free_leases(), "overdue": _end_overdue(), "sent": _send_again()}


def look_at_clock() -> bool:
    """Whether leases cannot be judged now. A process that will reconcile looks as soon as it begins."""
    return jumps.mistrusted(time.monotonic(), _database_clock(), conf.current().jobs_lease)


class Jumps:
    """Notices that the database's wall clock was set forward, by the monotonic one of this process.

    All leases seem to have ended then. Those who are alive renew theirs within a lease: so long nothing is freed. Nor
    is it soon after a process's first look, which cannot tell whether the clock was set a moment before.
    """

    def __init__(self) -> None:
        self._offset: float | None = None
        self._until = -math.inf

    def mistrusted(self, monotonic: float, wall: float, lease: float) -> bool:
        offset = wall - monotonic
        if self._offset is None:  # for two renewals: what was held by this process's predecessor then ends in time
            self._until = monotonic + 2 * lease / leases.RENEWALS
        elif offset - self._offset > JUMP:
            self._until = monotonic + lease
            logger.warning(
                "the clock went forward by %.0f s: no lease is ended for %.0f s", offset - self._offset, lease
            )
        self._offset = offset
        return monotonic < self._until


jumps = Jumps()


def _database_clock() -> float:
    """Its wall clock, by which leases are compared, in seconds."""
    if connection.vendor != "postgresql":  # SQLite's clock is this host's
        return time.time()
    with connection.cursor() as cursor:
        cursor.execute("select extract(epoch from clock_timestamp())")
        return float(cursor.fetchone()[0])


def _mend_a_clock_that_went_back(lease: float) -> None:
    """Moments that lie further ahead than they were ever set: a job would wait for them as long as the jump was."""
    far = Job.objects.filter(state=RUNNING, lease_until__gt=leases.moment(2 * lease))
    if mended := far.update(lease_until=leases.moment(lease)):
        logger.warning("the clock went back: %d leases begin anew", mended)
    # The pause before another attempt is ours, whatever the clock says; the `run_after` of a first one is the caller's.
    again = Job.objects.filter(state=QUEUED, attempts__gt=0, queued_at__gt=leases.moment(JUMP))
    again.update(queued_at=Now(), run_after=Now())


def _free_leases() -> int:
    """Jobs whose attempt has fallen silent: Celery's worker was killed, or frozen."""
    freed = 0
    for job in Job.objects.filter(state=RUNNING, lease_until__lt=Now()).order_by("lease_until")[:BATCH]:
        verdict, error = _verdict(job)
        facts = {"outcome": "lease_expired", "error": error}
        if not leases.free(job, verdict, error, facts):
            continue  # it came back to life since the list was read, or another tick was quicker
        freed += 1
        logger.warning("job %s: attempt %d fell silent; the job is %s", job.pk, job.attempts, verdict.state)
        if verdict.state == QUEUED:
            messages.send(job.pk, messages.queue_of(job.pool), verdict.pause)
        else:
            tell_finished(job.pk)
    return freed


def _verdict(job: Job) -> tuple[Verdict, dict[str, Any]]:
    if job.cancel_requested:
        return Verdict(CANCELLED, counts=False), _error("cancelled", "The job was cancelled; its attempt is gone.")
    rules = Rules(job.retry, job.attempts, job.failures, job.deaths, job.max_attempts, job.backoff)
    message = f"Attempt {job.attempts} ({job.claimed_by}) fell silent: its Celery worker died or hangs."
    return judge(Ending("lease_expired", "unknown"), rules), _error("worker_lost", message)


def _error(code: str, message: str, outcome: str = "unknown") -> dict[str, Any]:
    return {"code": code, "message": message, "outcome": outcome, "details": {}}


def _end_overdue() -> int:
    """Jobs whose deadline passed while they waited; that of a running one is its call's own."""
    ended = 0
    for job in Job.objects.filter(state=QUEUED, deadline__lt=Now())[:BATCH]:
        error = _error("deadline_exceeded", "The job's deadline passed while it waited.", "not_started")
        waiting = Job.objects.filter(pk=job.pk, state=QUEUED, attempts=job.attempts)
        if waiting.move(FAILED, error=error, **leases.ended(job.retention)):
            ended += 1
            tell_finished(job.pk)
    return ended


def _send_again() -> int:
    wait = conf.current().jobs_resend
    silent = Q(sent_at__isnull=True) | Q(sends__lte=1, sent_at__lte=Now() - timedelta(seconds=wait))
    silent |= Q(sends=2, sent_at__lte=Now() - timedelta(seconds=2 * wait))
    silent |= Q(sends__gte=SENDS_COUNTED, sent_at__lte=Now() - timedelta(seconds=4 * wait))
    if (unbroken := messages.unbroken.seconds()) is not None:
        # Rarely is for messages that lie in a long queue. Those that may be gone are not waited for.
        silent |= Q(sent_at__lte=Now() - timedelta(seconds=max(wait, unbroken)))
    silent |= Q(sent_at__gt=leases.moment(JUMP))  # the clock went back
    # A job that had to wait for its time has had no message at all.
    silent |= Q(run_after__gte=F("sent_at"), run_after__lte=Now())
    sent = 0
    waiting = Job.objects.filter(leases.DUE, silent, state=QUEUED).order_by("-priority", "id")
    for job in waiting[:BATCH]:
        mine = Job.objects.filter(pk=job.pk, state=QUEUED, attempts=job.attempts, sends=job.sends)
        if not mine.update(sent_at=Now(), sends=F("sends") + 1):
            continue  # another tick was quicker, or the job was claimed
        # The first message of a job that had to wait goes where it belongs; a repeated one to whoever is there.
        first = job.run_after is not None and (job.sent_at is None or job.run_after >= job.sent_at)
        if not messages.send(job.pk, messages.queue_of(job.pool) if first else messages.COMMON):
            mine = Job.objects.filter(pk=job.pk, state=QUEUED, attempts=job.attempts, sends=job.sends + 1)
            mine.update(sent_at=job.sent_at, sends=job.sends)  # it was not sent: the next tick tries again
            break  # the transport is away: the others would only wait for the same
        sent += 1
    return sent


def prune() -> int:
    """Delete ended jobs whose retention is over, in batches; returns how many."""
    gone = 0
    while True:
        old = list(Job.objects.filter(state__in=TERMINAL, expires_at__lt=Now()).values_list("pk", flat=True)[:BATCH])
        if not old:
            return gone
        Job.objects.filter(pk__in=old, state__in=TERMINAL, expires_at__lt=Now()).delete()
        gone += len(old)

"""Reconcile jobs, on ticks of beat. A tick may repeat, be late, or run in two processes at the same time."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import connections
from django.db.models import F, Q
from django.db.models.functions import Now

from snakepit.pools import conf
from snakepit.pools.broker.errors import Expired
from snakepit.pools.client import shared
from snakepit.pools.jobs import after_end, commands, ends, leases, listing, messages, periodic, queues, workflows
from snakepit.pools.jobs.policy import AttemptFailure, RetryState, Transition, next_transition
from snakepit.pools.jobs.signals import emit_finished, emit_requeued
from snakepit.pools.models import Job, schema
from snakepit.pools.models.hosting import placed
from snakepit.pools.models.states import CANCELLED, FAILED, QUEUED, RUNNING, WAITING

logger = logging.getLogger("snakepit.jobs")
BATCH = 500  # rows of each kind that one tick handles
MOST_BATCHES = 20  # of jobs without any message that one tick sends
READINGS = 2  # of both clocks, at most
JUMP = 5.0  # seconds of drift between two clocks from one tick to the next; more is a clock jump
# No message was sent yet: by a transport that was away, for the rest of a bulk submission, or before `run_after`.
FIRST = Q(sent_at__isnull=True) | Q(run_after__gte=F("sent_at"), run_after__lte=Now())
SENDS_COUNTED = 3  # each unclaimed message doubles the wait before the next one, up to this count


def reconcile() -> dict[str, int]:
    """Free jobs with an expired lease, end jobs past their deadline, resend unclaimed jobs. Returns the counts."""
    lease = conf.current().jobs_lease
    mistrusted = check_clock()
    _repair_after_clock_set_back(lease)
    return {
        "freed": 0 if mistrusted else _free_leases(),
        "overdue": _end_overdue(),
        "expired": _end_expired(),
        "released": workflows.release_missed(),
        "periodic": periodic.run_due(),
        "sent": _send_again(),
        "limited": queues.wake_limited(),
    }


def check_clock() -> bool:
    """Whether leases are unreliable now. A process that reconciles calls this as early as possible."""
    return clock_jumps.leases_unreliable(*_both_clocks(), conf.current().jobs_lease)


def _both_clocks() -> tuple[float, float]:
    """The clock of this process and the wall clock, read together.

    While the database is away, a reading takes long, and would look like a jump. The next one is fast.
    """
    for _ in range(READINGS):
        before = time.monotonic()
        wall = _database_clock()
        if time.monotonic() - before < JUMP / 2:
            break
    return before, wall


class ClockJumps:
    """Detects that the database's wall clock was set forward, by comparison with this process's monotonic clock.

    After a jump all leases seem to have expired. Live attempts renew theirs within one lease duration, so nothing is
    freed for that long. The same holds after a process's first check, which cannot detect an earlier jump.
    """

    def __init__(self) -> None:
        self._offset: float | None = None
        self._until = -math.inf

    def leases_unreliable(self, monotonic: float, wall: float, lease: float) -> bool:
        offset = wall - monotonic
        if self._offset is None:  # two renewals: short enough that leases of a crashed predecessor are freed in time
            self._until = monotonic + 2 * lease / leases.RENEWALS
        elif offset - self._offset > JUMP:
            self._until = monotonic + lease
            logger.warning(
                "the clock was set forward by %.0f s: no job is freed for %.0f s", offset - self._offset, lease
            )
        self._offset = offset
        return monotonic < self._until


clock_jumps = ClockJumps()


def _database_clock() -> float:
    """The database's wall clock, which decides about leases, in seconds."""
    connection = connections[schema.alias()]
    if connection.vendor != "postgresql":  # SQLite's clock is this host's
        return time.time()
    with connection.cursor() as cursor:
        cursor.execute("select extract(epoch from clock_timestamp())")
        return float(cursor.fetchone()[0])


def _repair_after_clock_set_back(lease: float) -> None:
    """Shorten times that lie too far in the future. Otherwise jobs would wait for as long as the jump was."""
    far = Job.objects.filter(state=RUNNING, lease_until__gt=leases.moment(2 * lease))
    if repaired := far.update(lease_until=leases.moment(lease)):
        logger.warning("the clock was set back: %d leases start again", repaired)
    # Only the pause before another attempt is reset; the `run_after` of a first attempt belongs to the caller.
    again = Job.objects.filter(state=QUEUED, attempts__gt=0, queued_at__gt=leases.moment(JUMP))
    again.update(queued_at=Now(), run_after=Now())


def _free_leases() -> int:
    """Free jobs whose lease has expired: their Celery worker was killed, or hangs."""
    expired = list(Job.objects.filter(state=RUNNING, lease_until__lt=Now()).order_by("lease_until")[:BATCH])
    if expired and check_clock():
        return 0  # the clock was set forward since the tick began
    freed = 0
    for job in expired:
        known = commands.cache.find(shared.client(), job.pool) if job.retry == "safe" else {}
        if known is None:
            continue  # the broker does not answer whether the command is idempotent: the next tick asks again
        transition, error = _transition(job, commands.is_idempotent(known, job.command))
        facts = {"outcome": "lease_expired", "error": error}
        if not leases.free(job, transition, error, facts):
            continue  # the attempt renewed its lease meanwhile, or another tick was faster
        freed += 1
        logger.warning("job %s: the lease of attempt %d expired; state: %s", job.pk, job.attempts, transition.state)
        if transition.state == QUEUED:
            messages.send(job.pk, messages.queue_of(job.pool), transition.pause)
        after_end.announce([partial(emit_requeued if transition.state == QUEUED else emit_finished, job.pk)])
    return freed


def _transition(job: Job, idempotent: bool) -> tuple[Transition, dict[str, Any]]:
    if job.cancel_requested:
        return Transition(CANCELLED, counts=False), _error("cancelled", "The job was cancelled; its lease expired.")
    rules = RetryState(job.retry, job.attempts, job.failures, job.deaths, job.max_attempts, job.backoff)
    message = f"The lease of attempt {job.attempts} ({job.claimed_by}) expired: its Celery worker died or hangs."
    failure = AttemptFailure("lease_expired", "unknown", idempotent)
    return next_transition(failure, rules), _error("worker_lost", message)


def _error(code: str, message: str, outcome: str = "unknown") -> dict[str, Any]:
    return {"code": code, "message": message, "outcome": outcome, "details": {}}


def _end_overdue() -> int:
    """End queued jobs past their deadline. For a running job, its call has the deadline."""
    error = _error("deadline_exceeded", "The job's deadline passed while it was queued.", "not_started")
    overdue = Job.objects.filter(state__in=WAITING, deadline__lt=Now()).defer(*listing.LARGE)[:BATCH]
    written = ends.write(ends.End(job, Transition(FAILED), error, source=job.state) for job in overdue)
    after_end.announce(partial(emit_finished, job_id) for job_id in written)
    return len(written)


def _end_expired() -> int:
    """Cancel waiting jobs that have not begun before their `expires`. No attempt claims them meanwhile."""
    error = _error("expired", str(Expired()), "not_started")
    late = Job.objects.filter(state__in=WAITING, begun=False, expires__lte=Now()).defer(*listing.LARGE)[:BATCH]
    written = ends.write(ends.End(job, Transition(CANCELLED), error, source=job.state) for job in late)
    after_end.announce(partial(emit_finished, job_id) for job_id in written)
    return len(written)


def _send_again() -> int:
    wait = conf.current().jobs_resend
    silent = FIRST | Q(sends__lte=1, sent_at__lte=Now() - timedelta(seconds=wait))
    silent |= Q(sends=2, sent_at__lte=Now() - timedelta(seconds=2 * wait))
    silent |= Q(sends__gte=SENDS_COUNTED, sent_at__lte=Now() - timedelta(seconds=4 * wait))
    if (connection_age := messages.connection_age.seconds()) is not None:
        # The longer waits are for messages in a long queue. Messages that may be lost are resent after one wait.
        silent |= Q(sent_at__lte=Now() - timedelta(seconds=max(wait, connection_age)))
    silent |= Q(sent_at__gt=leases.moment(JUMP))  # the clock was set back
    sent, away = _send_first()
    return sent if away else sent + _send_batch(silent, again=1).sent


@dataclass(frozen=True, slots=True)
class _Batch:
    sent: int = 0
    full: bool = False  # there may be more rows
    away: bool = False


def _send_first() -> tuple[int, bool]:
    """Send the jobs that no message was sent for, all of a bulk submission in one tick; True: the transport is away."""
    sent = 0
    for _ in range(MOST_BATCHES):
        batch = _send_batch(FIRST, again=0)
        sent += batch.sent
        if batch.away or not batch.full or not batch.sent:
            return sent, batch.away
    return sent, False


def _send_batch(silent: Q, again: int) -> _Batch:
    """Send a message for some silent jobs. `again`: 1 if it counts as a repeated one, so that the next waits."""
    jobs = list(
        Job.objects.filter(leases.DUE, silent, state=QUEUED).order_by("-priority", "id").defer(*listing.LARGE)[:BATCH]
    )
    mine = Job.objects.filter(leases.DUE, silent, pk__in=[job.pk for job in jobs], state=QUEUED)
    if not jobs or not mine.update(sent_at=Now(), sends=F("sends") + again):
        return _Batch()  # another tick was faster, or the jobs were claimed
    queues: dict[tuple[str, str], list[Job]] = {}  # a hint is for one pool
    elsewhere = placed()
    for job in jobs:
        # The first message of a job goes to its pool's queue; a repeated one to the common queue of all nodes.
        first = job.sent_at is None or (job.run_after is not None and job.run_after >= job.sent_at)
        queue = messages.queue_of(job.pool) if first or job.pool in elsewhere else messages.COMMON
        queues.setdefault((queue, job.pool), []).append(job)
    sent: set[Any] = set()
    away = False
    for (queue, _), some in queues.items():
        if not away:  # else it is away for the other queues too
            answer = messages.send_many([job.pk for job in some], queue)
            sent, away = sent | set(answer.ids), answer.away
    if unsent := [job for job in jobs if job.pk not in sent]:  # the next batch or tick sends them
        Job.objects.filter(state=QUEUED).bulk_update(unsent, ["sent_at", "sends"])
    return _Batch(len(sent), len(jobs) == BATCH or bool(unsent), away)

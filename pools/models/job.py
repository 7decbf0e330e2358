"""Job, JobAttempt and JobEntry: a durable call, its attempts, and its output."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn, Self

from django.db import models
from django.db.models import F, Q
from django.db.models.base import ModelBase
from django.db.models.functions import Now

from snakepit.pools.models import job_wait
from snakepit.pools.models.moments import MomentField, utc_now
from snakepit.pools.models.states import (
    ACTIVE,
    BLOCKED,
    QUEUED,
    RUNNING,
    SCHEDULED,
    STATES,
    SUCCEEDED,
    TERMINAL,
    UNSUCCESSFUL,
    WAITING,
    IllegalMove,
    shown,
    sources,
)

RETRIES = ("never", "safe", "lost", "always")
RANDOM_BITS = 62  # of an id; the others are time, version and variant
PARTS = 4096  # of a millisecond, which the time of an id counts (RFC 9562, section 6.2, method 3)
KINDS = ("chunk", "log", "progress", "truncated")


def uuid7() -> uuid.UUID:
    """An id that sorts by its creation time (RFC 9562, version 7), so that it serves as cursor of pages.

    Ids of one process sort in the order in which they were made, unless its clock is set back.

    >>> uuid7().version, uuid7().variant == uuid.RFC_4122
    (7, True)
    """
    return _as_uuid7(_now_and_random())


def uuid7s(after: Iterable[uuid.UUID] = ()) -> Iterator[uuid.UUID]:
    """Ids as of `uuid7`, each greater than the one before it and than `after`, also with a coarse clock.

    >>> ids = uuid7s()
    >>> some = [next(ids) for _ in range(1000)]
    >>> some == sorted(some)
    True
    >>> future = uuid.UUID("ffffffff-0000-7000-8000-000000000000")  # of a host whose clock is ahead
    >>> next(uuid7s([future])) > future
    True
    """
    last = max([_now_and_random(), *(_value_of(one) + 1 for one in after)])
    while True:
        yield _as_uuid7(last)
        # Steps of random size, so that an id does not reveal the next one.
        is_later = _now() > last >> RANDOM_BITS
        last = _now_and_random() if is_later else last + 1 + int.from_bytes(os.urandom(4), "big")


def _now() -> int:
    """The time, in parts of a millisecond."""
    return time.time_ns() * PARTS // 1_000_000


def _now_and_random() -> int:
    """The time, followed by the random bits of an id."""
    random = int.from_bytes(os.urandom(8), "big") >> (64 - RANDOM_BITS)
    return _now() << RANDOM_BITS | random


def _as_uuid7(value: int) -> uuid.UUID:
    """Set version and variant between the bits."""
    high, low = value >> 62, value & (1 << 62) - 1
    return uuid.UUID(int=(high >> 12) << 80 | 0x7 << 76 | (high & 0xFFF) << 64 | 0x2 << 62 | low)


def _value_of(key: uuid.UUID) -> int:
    """The bits of an id without version and variant."""
    return ((key.int >> 80) << 12 | key.int >> 64 & 0xFFF) << 62 | key.int & (1 << 62) - 1


class JobQuerySet(models.QuerySet["Job"]):
    """Rows whose state changes only by `move`: one UPDATE that allows only the transitions of `states`."""

    def move(self, to: str, **fields: Any) -> int:
        """Move the rows that may change to this state; returns their number."""
        return models.QuerySet.update(self.filter(state__in=sources(to)), state=to, **fields)

    def update(self, **fields: Any) -> int:
        if "state" in fields:
            raise IllegalMove("The state of a job changes by Job.objects.filter(...).move(state), not by update().")
        return super().update(**fields)

    def bulk_update(self, objs: Iterable[Any], fields: Iterable[str], batch_size: int | None = None) -> int:
        if "state" in (names := list(fields)):
            raise IllegalMove(
                "The state of a job changes by Job.objects.filter(...).move(state), not by bulk_update()."
            )
        return super().bulk_update(objs, names, batch_size)

    def shown_as(self, state: str) -> Self:
        """The jobs that show this state, by the database's clock: `queued` is `scheduled` until `run_after`."""
        if state == SCHEDULED:
            return self.filter(state=QUEUED, run_after__gt=Now())
        rows = self.filter(state=state)
        return rows.filter(Q(run_after__isnull=True) | Q(run_after__lte=Now())) if state == QUEUED else rows

    def claimed_as(self, job: Any, attempt: int) -> Self:
        """The fence: the job, if `attempt` is its newest and runs. A superseded attempt matches no row."""
        return self.filter(pk=job, attempts=attempt, state=RUNNING)


class Job(models.Model):
    """A durable call of a pool's command."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    pool = models.CharField(max_length=48)
    command = models.CharField(max_length=200)
    arguments = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=16, choices=[(one, one) for one in STATES], default=QUEUED)
    priority = models.SmallIntegerField(default=0)
    run_after = MomentField(null=True, blank=True)
    deadline = MomentField(null=True, blank=True)
    expires = MomentField(null=True, blank=True, help_text="When it is cancelled if no attempt has begun.")
    timeout = models.FloatField(null=True, blank=True, help_text="Timeout of one attempt. [s]")
    retry = models.CharField(max_length=8, choices=[(one, one) for one in RETRIES], default="lost")
    max_attempts = models.PositiveSmallIntegerField(default=3)
    backoff = models.FloatField(default=2.0, help_text="Pause before the second attempt; doubles each time. [s]")
    attempts = models.PositiveIntegerField(default=0, help_text="Number of the newest attempt: the fencing token.")
    failures = models.PositiveIntegerField(default=0, help_text="Attempts that count against max_attempts.")
    deaths = models.PositiveIntegerField(default=0, help_text="Attempts in which the worker died.")
    snoozes = models.PositiveIntegerField(default=0, help_text="Attempts in which its command put it off.")
    begun = models.BooleanField(default=False, help_text="An attempt has ended in which its command ran.")
    lease_until = MomentField(null=True, blank=True)
    claimed_by = models.CharField(max_length=200, blank=True)
    cancel_requested = models.BooleanField(default=False)
    sent_at = MomentField(null=True, blank=True, help_text="When its newest message was sent.")
    sends = models.PositiveIntegerField(default=1)
    idempotency_key = models.CharField(max_length=200, blank=True)
    unique_key = models.CharField(max_length=40, blank=True, help_text="Digest of what makes it unique.")
    limit_key = models.CharField(max_length=40, blank=True, help_text="Digest of the argument that a limit counts by.")
    owner = models.CharField(max_length=150, blank=True, help_text="Name of the user who owns the job.")
    key = models.CharField(max_length=20, blank=True, help_text="The API key that submitted it.")
    size = models.PositiveIntegerField(default=0, help_text="Arguments. [bytes]")
    tags = models.CharField(max_length=1000, blank=True, help_text="Each tag with a comma before and after it.")
    workflow = models.ForeignKey(
        "JobWorkflow", null=True, blank=True, on_delete=models.SET_NULL, related_name="jobs", db_index=False
    )
    hooked = models.BooleanField(default=False, help_text="Its adapter had the hook on_failure at its submission.")
    result = models.JSONField(null=True, blank=True)
    result_raw = models.BinaryField(null=True, blank=True)
    error = models.JSONField(null=True, blank=True)
    progress = models.FloatField(null=True, blank=True)
    progress_message = models.CharField(max_length=500, blank=True)
    entry_count = models.PositiveIntegerField(default=0)
    entry_bytes = models.PositiveBigIntegerField(default=0)
    truncated = models.BooleanField(default=False, help_text="Output beyond the limits was not stored.")
    retention = models.PositiveIntegerField(default=604_800, help_text="Time until deletion after its end. [s]")
    created_at = MomentField(auto_now_add=True)
    queued_at = MomentField(auto_now_add=True)
    started_at = MomentField(null=True, blank=True, help_text="Start of the newest attempt.")
    finished_at = MomentField(null=True, blank=True)
    expires_at = MomentField(null=True, blank=True)

    arguments_short = ""  # the start of the arguments, in rows of `listing.page`
    limited = False  # True if it was claimed in a pool with limits of jobs
    waits_for = ""  # the limit, the pool or the jobs that it waits for, where one job is shown
    depends_on: tuple[str, ...] = ()  # the ids of the jobs that it waits for or has waited for, where one is shown
    existed = False  # True if `submit` returned an existing job, for its idempotency key or as unique

    objects = JobQuerySet.as_manager()

    class Meta:
        db_table = "snakepit_job"
        ordering = ("-id",)
        permissions = [("manage_job", "Can cancel and retry the jobs of others")]
        constraints = [
            models.CheckConstraint(name="snakepit_job_state", condition=Q(state__in=STATES)),
            models.CheckConstraint(
                name="snakepit_job_finished",
                condition=Q(state__in=TERMINAL, finished_at__isnull=False, expires_at__isnull=False)
                | Q(state__in=ACTIVE, finished_at__isnull=True, expires_at__isnull=True),
            ),
            models.CheckConstraint(
                name="snakepit_job_leased",
                condition=(Q(state=RUNNING, lease_until__isnull=False, attempts__gte=1) & ~Q(claimed_by=""))
                | (~Q(state=RUNNING) & Q(lease_until__isnull=True, claimed_by="")),
            ),
            models.CheckConstraint(
                name="snakepit_job_error",
                condition=~Q(state=SUCCEEDED) | Q(error__isnull=True),
            ),
            models.CheckConstraint(
                name="snakepit_job_result",
                condition=Q(state=SUCCEEDED) | Q(result__isnull=True, result_raw__isnull=True),
            ),
            models.CheckConstraint(
                name="snakepit_job_ranges",
                condition=Q(priority__gte=-100, priority__lte=100, max_attempts__gte=1, backoff__gte=0)
                & Q(failures__lte=F("attempts"), deaths__lte=F("attempts"), retry__in=RETRIES)
                & (Q(progress__isnull=True) | Q(progress__gte=0, progress__lte=1))
                & (Q(timeout__isnull=True) | Q(timeout__gt=0)),
            ),
            models.CheckConstraint(name="snakepit_job_named", condition=~Q(pool="") & ~Q(command="")),
            models.UniqueConstraint(
                name="snakepit_job_once",
                fields=["owner", "pool", "idempotency_key"],
                condition=~Q(idempotency_key=""),
            ),
        ]
        indexes = [
            models.Index(fields=["state", "-id"], name="snakepit_job_state_id"),
            models.Index(fields=["pool", "state", "-id"], name="snakepit_job_pool_id"),
            # The columns behind the id are compared in the index: rows of an owner in other pools are not read.
            models.Index(fields=["owner", "-id", "pool", "command"], name="snakepit_job_owner_id"),
            models.Index(fields=["pool", "-id"], name="snakepit_job_pool_only"),
            models.Index(fields=["pool", "command", "-id"], name="snakepit_job_pool_command"),
            models.Index(fields=["command", "-id"], name="snakepit_job_command"),
            models.Index(fields=["lease_until"], name="snakepit_job_lease", condition=Q(state=RUNNING)),
            models.Index(fields=["queued_at"], name="snakepit_job_queued", condition=Q(state=QUEUED)),
            models.Index(fields=["run_after"], name="snakepit_job_due", condition=Q(state=QUEUED)),
            models.Index(fields=["sent_at"], name="snakepit_job_sent", condition=Q(state=QUEUED)),
            models.Index(fields=["pool", "-priority", "id"], name="snakepit_job_claim", condition=Q(state=QUEUED)),
            models.Index(fields=["expires_at"], name="snakepit_job_expires"),
            models.Index(fields=["unique_key"], name="snakepit_job_unique", condition=~Q(unique_key="")),
            # Errors in groups read the newest, alerts those of the last hour: both are few beside the others.
            models.Index(fields=["-id"], name="snakepit_job_unsuccessful", condition=Q(state__in=UNSUCCESSFUL)),
            models.Index(
                fields=["owner", "-id", "pool", "state"],
                name="snakepit_job_owner_bad",
                condition=Q(state__in=UNSUCCESSFUL),
            ),
            models.Index(
                fields=["command", "-id", "pool", "state"],
                name="snakepit_job_command_bad",
                condition=Q(state__in=UNSUCCESSFUL),
            ),
            models.Index(
                fields=["owner", "-id", "pool"], name="snakepit_job_owner_active", condition=Q(state__in=ACTIVE)
            ),
            models.Index(
                fields=["command", "-id", "pool"], name="snakepit_job_command_active", condition=Q(state__in=ACTIVE)
            ),
            # With `finished_at`, so that no list reads it: PostgreSQL takes its rows to lie next to each other.
            models.Index(
                fields=["finished_at"],
                name="snakepit_job_troubles",
                condition=Q(state__in=UNSUCCESSFUL, finished_at__isnull=False),
            ),
            models.Index(
                fields=["expires"],
                name="snakepit_job_unbegun",
                condition=Q(state__in=WAITING, begun=False, expires__isnull=False),
            ),
            models.Index(
                fields=["pool", "owner", "-priority", "id"], name="snakepit_job_turns", condition=Q(state=QUEUED)
            ),
            models.Index(
                fields=["pool", "limit_key", "-priority", "id"],
                name="snakepit_job_keys",
                condition=Q(state=QUEUED) & ~Q(limit_key=""),
            ),
            models.Index(
                fields=["pool", "owner", "key", "size"], name="snakepit_job_waiting", condition=Q(state__in=WAITING)
            ),
            models.Index(fields=["workflow", "id"], name="snakepit_job_workflow", condition=Q(workflow__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.pool}.{self.command} {self.pk}"

    def save(
        self,
        *,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        # A row that was read earlier may be stale, so it must not be written back as a whole.
        if not self._state.adding:
            refuse("save()")
        if self.state not in (QUEUED, BLOCKED):
            raise IllegalMove(f"A new job must be {QUEUED}, not {self.state!r}.")
        super().save(force_insert=force_insert, force_update=force_update, using=using, update_fields=update_fields)

    @property
    def tag_list(self) -> list[str]:
        return [tag for tag in self.tags.split(",") if tag]

    @property
    def shown_state(self) -> str:
        """The state on every surface: `state`, or `scheduled` while a queued job waits for its `run_after`."""
        return shown(self.state, self.run_after, utc_now())

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def value(self) -> Any:
        """The result: what the command returned."""
        return self.result if self.result_raw is None else bytes(self.result_raw)

    def wait(self, timeout: float | None = None) -> Self:
        """Wait for the end of the job and return it; raises TimeoutError after `timeout` seconds, and the job goes on.

        A job that failed is returned too: `state` and `error` have the reason. Call it after the commit of the
        transaction that submitted the job.
        """
        job_wait.wait(self, timeout)
        return self

    async def afinished(self, timeout: float | None = None) -> Self:
        """As `wait`, for an event loop."""
        await job_wait.afinished(self, timeout)
        return self

    def refresh(self) -> Self:
        """Read the row again and return the job."""
        self.refresh_from_db()
        return self

    async def arefresh(self) -> Self:
        """As `refresh`, for an event loop."""
        await self.arefresh_from_db()
        return self


def refuse(what: str) -> NoReturn:
    raise IllegalMove(f"A job is changed by Job.objects.filter(...).move() and update(), not by {what}.")


def join_tags(tags: Sequence[str]) -> str:
    return f",{','.join(tags)}," if tags else ""


class JobAttempt(models.Model):
    """One attempt of a job."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="tries")
    number = models.PositiveIntegerField()
    claimed_by = models.CharField(max_length=200, blank=True, help_text="The Celery worker that ran it.")
    worker = models.CharField(max_length=100, blank=True)
    node = models.CharField(max_length=200, blank=True)
    call = models.CharField(max_length=100, blank=True)
    started_at = MomentField()
    finished_at = MomentField(null=True, blank=True)
    outcome = models.CharField(
        max_length=32, blank=True, help_text="succeeded, an error's code, lease_expired, requeued."
    )
    error = models.JSONField(null=True, blank=True)
    evidence = models.JSONField(null=True, blank=True, help_text="Evidence of the worker's death.")

    class Meta:
        db_table = "snakepit_jobattempt"
        ordering = ("job", "number")
        constraints = [models.UniqueConstraint(fields=["job", "number"], name="snakepit_jobattempt_once")]

    def __str__(self) -> str:
        return f"attempt {self.number} of {self.job_id}"


class JobEntry(models.Model):
    """One piece of a job's output, in order. Rows never change."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="entries")
    seq = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField()
    kind = models.CharField(max_length=16, choices=[(one, one) for one in KINDS])
    data = models.JSONField(null=True)
    at = MomentField(auto_now_add=True)

    class Meta:
        db_table = "snakepit_jobentry"
        ordering = ("job", "seq")
        verbose_name_plural = "job entries"
        constraints = [
            models.UniqueConstraint(fields=["job", "seq"], name="snakepit_jobentry_once"),
            models.CheckConstraint(name="snakepit_jobentry_kind", condition=Q(kind__in=KINDS)),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.seq} of {self.job_id}"

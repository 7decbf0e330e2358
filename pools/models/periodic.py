"""PeriodicJob and PeriodicRun: jobs that are submitted by a schedule, and the runs that were made.

A run is unique by (schedule, nominal time). With it and the job in one transaction, any number of schedulers make one
job for each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.db.models.base import ModelBase

from snakepit.pools.models.job import RETRIES
from snakepit.pools.models.moments import MomentField, utc_now
from snakepit.pools.models.recurrence import Recurrence
from snakepit.pools.models.strict_json import find_problem

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
SHOWN_RUNS = 5  # next times on the pages
KEPT_RUNS = 100  # rows of runs of one schedule
# Columns that the scheduler writes. `save` does not write them: a form may hold old values.
RUN_COLUMNS = frozenset({"last_run", "last_job", "problem"})
TEXTS = ("pool", "command", "owner", "tags", "cron", "time_zone", "arguments")  # from outside


class Misfire(models.TextChoices):
    SKIP = "skip", "skip runs that were missed"
    ONCE = "once", "make up one run for all that were missed"


class PeriodicJob(models.Model):
    """A schedule, and the job that it submits."""

    name = models.CharField(max_length=40, unique=True, help_text="Its jobs have the tag periodic:NAME.")
    pool = models.CharField(max_length=48)
    command = models.CharField(max_length=200)
    arguments = models.JSONField(default=dict, blank=True)
    cron = models.CharField(
        max_length=200,
        blank=True,
        help_text="Minute, hour, day of month, month, day of week, such as 30 2 * * MON-FRI.",
    )
    time_zone = models.CharField(max_length=64, default="UTC", help_text="Zone of the cron expression.")
    interval = models.PositiveIntegerField(null=True, blank=True, help_text="Instead of cron. [s]")
    enabled = models.BooleanField(default=True)
    misfire = models.CharField(max_length=8, choices=Misfire.choices, default=Misfire.SKIP)
    priority = models.SmallIntegerField(default=0)
    timeout = models.FloatField(null=True, blank=True, help_text="Timeout of one attempt. [s]")
    expires_after = models.PositiveIntegerField(
        null=True, blank=True, help_text="Cancel a job that has not begun so long after its nominal time. [s]"
    )
    max_attempts = models.PositiveSmallIntegerField(null=True, blank=True, help_text="Empty: JOBS_MAX_ATTEMPTS.")
    backoff = models.FloatField(null=True, blank=True, help_text="Empty: JOBS_BACKOFF. [s]")
    retry = models.CharField(max_length=8, choices=[(one, one) for one in RETRIES], default="lost")
    tags = models.CharField(max_length=1000, blank=True, help_text="Separated by commas.")
    owner = models.CharField(max_length=150, blank=True, help_text="Name of the user who owns the jobs.")
    retention = models.PositiveIntegerField(null=True, blank=True, help_text="Empty: JOBS_RETENTION. [s]")
    next_run = MomentField(null=True, blank=True, editable=False)
    planned = models.CharField(max_length=300, blank=True, editable=False, help_text="What next_run was computed from.")
    last_run = MomentField(null=True, blank=True, editable=False, help_text="Nominal time of the newest run.")
    last_job = models.UUIDField(null=True, blank=True, editable=False)
    problem = models.CharField(max_length=500, blank=True, editable=False, help_text="Why the newest run has no job.")
    created_at = MomentField(auto_now_add=True)
    updated_at = MomentField(auto_now=True)

    class Meta:
        db_table = "snakepit_periodicjob"
        ordering = ("name",)
        constraints = [
            models.CheckConstraint(
                name="snakepit_periodicjob_when",
                condition=(~Q(cron="") & Q(interval__isnull=True)) | (Q(cron="") & Q(interval__gte=1)),
                violation_error_message="Set either cron or interval.",
            ),
            models.CheckConstraint(
                name="snakepit_periodicjob_choices",
                condition=Q(misfire__in=[one.value for one in Misfire], retry__in=RETRIES),
            ),
        ]
        indexes = [models.Index(fields=["next_run"], name="snakepit_periodic_next", condition=Q(enabled=True))]

    def __str__(self) -> str:
        return self.name

    def save(
        self,
        *,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Store the definition. The next run is computed anew if the schedule has changed or was paused."""
        adding = self._state.adding
        self._check_written(update_fields)
        if problems := self._problems():
            raise ValidationError(problems)
        self.tags = ",".join(self.tag_list)
        names = {field.name for field in self._meta.concrete_fields if not field.primary_key} - RUN_COLUMNS
        if not self._plan(adding):
            names -= {"next_run", "planned"}
        chosen = (
            None if adding else names if update_fields is None else (names & {*update_fields, "next_run", "planned"})
        )
        super().save(force_insert=force_insert, force_update=force_update, using=using, update_fields=chosen)

    def clean(self) -> None:
        super().clean()
        if problems := self._problems():
            raise ValidationError(problems)

    def _check_written(self, update_fields: Iterable[str] | None) -> None:
        """Convert and check what is written, as a form does. A database would refuse it without the field's name."""
        if isinstance(self.tags, list | tuple):
            self.tags = ",".join(map(str, self.tags))
        fields = self._meta.concrete_fields
        own = {field.name for field in fields if field.editable and not field.primary_key}
        written = own if update_fields is None else own & {*update_fields}
        self.clean_fields(exclude={field.name for field in fields} - written)

    def _problems(self) -> dict[str, str]:
        """What is wrong with the schedule, what no database takes, and the name, which becomes a tag of the jobs."""
        texts = {name: find_problem(getattr(self, name)) for name in TEXTS}
        problems = {name: why for name, why in texts.items() if why} or self.recurrence.problems()
        if not isinstance(self.arguments, dict):
            problems["arguments"] = "must be an object: the arguments by name"
        if not NAME.fullmatch(self.name or ""):
            problems["name"] = "must have 1 to 40 characters: lower-case letters, digits and _.-"
        return problems

    def _plan(self, adding: bool) -> bool:
        """Compute the next run, if the stored one does not hold any more; returns whether it did."""
        stored = None if adding else type(self).objects.filter(pk=self.pk).values_list("planned", "last_run").first()
        planned = self.schedule if self.enabled else ""
        if stored and stored[0] == planned:
            return False
        now, last = utc_now(), stored[1] if stored else None
        start = max(now, last) if last else now  # a clock that was set back must not repeat a run
        self.planned, self.next_run = planned, self.recurrence.after(start) if self.enabled else None
        return True

    @property
    def recurrence(self) -> Recurrence:
        return Recurrence(self.cron, self.time_zone, self.interval)

    @property
    def schedule(self) -> str:
        """The schedule as text."""
        return f"{self.cron} {self.time_zone}" if self.cron else f"every {self.interval} s"

    @property
    def tag_list(self) -> list[str]:
        return [tag.strip() for tag in self.tags.split(",") if tag.strip()]

    def next_runs(self, count: int = SHOWN_RUNS) -> list[Any]:
        """The next nominal times; none while it is paused."""
        if not self.enabled or self.next_run is None:
            return []
        return [self.next_run, *self.recurrence.some(self.next_run, count - 1)]


def tags_of(periodic: PeriodicJob) -> list[str]:
    """The tags of its jobs."""
    return [f"periodic:{periodic.name}", *periodic.tag_list]


class PeriodicRun(models.Model):
    """One run of a schedule."""

    periodic = models.ForeignKey(PeriodicJob, on_delete=models.CASCADE, related_name="runs")
    nominal = MomentField(help_text="The time of the schedule that it is for.")
    at = MomentField(auto_now_add=True)
    job = models.UUIDField(null=True, blank=True)
    problem = models.CharField(max_length=500, blank=True)

    class Meta:
        db_table = "snakepit_periodicrun"
        ordering = ("periodic", "-nominal")
        constraints = [models.UniqueConstraint(fields=["periodic", "nominal"], name="snakepit_periodicrun_once")]

    def __str__(self) -> str:
        return f"{self.periodic_id} at {self.nominal}"

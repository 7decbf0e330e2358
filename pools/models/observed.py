"""Node, Worker and Event: observed state. Only the recorder writes these rows; the broker never reads them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Self

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from snakepit.pools.models.moments import MomentField

WORKER_STATES = ("starting", "ready", "draining", "stopping", "gone")
LEVELS = ("info", "warning", "error")


class NodeQuerySet(models.QuerySet["Node"]):
    """Nodes by the time since their broker wrote the row. Both moments are of the database's clock.

    With the clocks of two hosts, a live node would look silent as soon as they differ by some seconds.
    """

    def seen_within(self, period: timedelta) -> Self:
        return self.filter(seen_at__gte=Now() - period)

    def silent_for(self, period: timedelta) -> Self:
        return self.filter(seen_at__lt=Now() - period)

    def with_silence(self) -> Any:  # its types have no annotations
        """Each with that time as `silence`."""
        return self.annotate(silence=Now() - F("seen_at"))


class Node(models.Model):
    """A host with a broker."""

    name = models.CharField(max_length=200, unique=True)
    address = models.CharField(max_length=500, blank=True)
    host = models.CharField(max_length=100, blank=True, help_text="Boot id of its machine: its Unix path works there.")
    advertised = models.JSONField(default=list, blank=True, help_text="host:port by which other hosts reach it.")
    labels = models.JSONField(default=list, blank=True, help_text="Labels that place pools on it.")
    pid = models.PositiveIntegerField(default=0)
    version = models.CharField(max_length=50, blank=True)
    python = models.CharField(max_length=200, blank=True)
    clock = models.CharField(max_length=50, blank=True, help_text="What triggers sweeps.")
    draining = models.BooleanField(default=False)
    stopped = models.BooleanField(default=False, help_text="The broker has shut down cleanly.")
    problems = models.JSONField(default=list, blank=True)
    started_at = MomentField(null=True, blank=True)
    seen_at = MomentField(db_index=True)  # by the database's clock

    objects = NodeQuerySet.as_manager()

    class Meta:
        db_table = "snakepit_node"
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Worker(models.Model):
    """One worker, as its broker last reported it."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="workers")
    worker_id = models.CharField("worker", max_length=100)
    pool = models.CharField(max_length=48)
    state = models.CharField(max_length=16, choices=[(one, one) for one in WORKER_STATES])
    reason = models.CharField(max_length=200, blank=True)
    pid = models.PositiveIntegerField(default=0)
    generation = models.PositiveIntegerField(default=0)
    load = models.PositiveIntegerField(default=0)
    capacity = models.PositiveIntegerField(default=0)
    lost = models.PositiveIntegerField(default=0, help_text="Slots held by threads that did not stop.")
    served = models.PositiveBigIntegerField(default=0)
    memory_mb = models.FloatField(null=True, blank=True)
    gil = models.CharField(max_length=8, blank=True)
    gil_culprit = models.CharField(max_length=200, blank=True)
    python = models.CharField(max_length=200, blank=True)
    parallelism = models.FloatField(default=0.0)
    template = models.CharField(max_length=100, blank=True, help_text="Template it was forked from. Empty: spawned.")
    load_seconds = models.FloatField(default=0.0)
    started_at = MomentField(null=True, blank=True)
    seen_at = MomentField()
    gone_at = MomentField(null=True, blank=True)

    class Meta:
        db_table = "snakepit_worker"
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(fields=["node", "worker_id"], name="snakepit_worker_once"),
            models.CheckConstraint(name="snakepit_worker_state", condition=Q(state__in=WORKER_STATES)),
        ]
        indexes = [
            models.Index(fields=["pool", "-id"], name="snakepit_worker_pool"),
            models.Index(fields=["node", "state"], name="snakepit_worker_node_state"),
            models.Index(fields=["worker_id"], name="snakepit_worker_ident"),
        ]

    def __str__(self) -> str:
        return self.worker_id


class Event(models.Model):
    """A decision or observation of a broker, with its reason and numbers."""

    at = MomentField(db_index=True)
    node = models.CharField(max_length=200, blank=True)
    kind = models.CharField(max_length=50)
    pool = models.CharField(max_length=48, blank=True)
    worker = models.CharField(max_length=100, blank=True)
    reason = models.CharField(max_length=100, blank=True)
    message = models.TextField(blank=True)
    level = models.CharField(max_length=16, default="info", choices=[(one, one) for one in LEVELS])
    data = models.JSONField(default=dict, blank=True)

    class Meta:
        db_table = "snakepit_event"
        ordering = ("-id",)
        constraints = [models.CheckConstraint(name="snakepit_event_level", condition=Q(level__in=LEVELS))]
        indexes = [
            models.Index(fields=["pool", "-id"], name="snakepit_event_pool"),
            models.Index(fields=["worker", "-id"], name="snakepit_event_worker"),
            models.Index(fields=["kind", "-id"], name="snakepit_event_kind"),
        ]

    def __str__(self) -> str:
        subject = self.worker or self.pool or self.node
        return f"{self.kind} {subject}".strip()

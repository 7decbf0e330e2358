"""Audit: actor, action, time, source, reason and outcome of each order. Only `operations` writes it."""

from __future__ import annotations

from datetime import timedelta

from django.db import models

from snakepit.pools.models.moments import MomentField, utc_now

DONE = "done"
SURFACES = ("dashboard", "admin", "rest", "shell")
BATCH = 1000  # rows that one statement deletes


class Audit(models.Model):
    """One order of a user or key, carried out or refused."""

    at = MomentField(default=utc_now, db_index=True)
    actor = models.CharField(max_length=200, help_text="A user, an API key, or a user of a shell.")
    action = models.CharField(max_length=50)
    pool = models.CharField(max_length=48, blank=True)
    target = models.CharField(max_length=100, blank=True, help_text="A worker, job, node or key. Empty: the pool.")
    reason = models.CharField(max_length=200, blank=True)
    surface = models.CharField(max_length=16, blank=True, choices=[(one, one) for one in SURFACES])
    address = models.CharField(max_length=45, blank=True)
    outcome = models.CharField(max_length=50, default=DONE, help_text="done, or the code of the error.")
    message = models.TextField(blank=True)
    data = models.JSONField(default=dict, blank=True, help_text="Changed values: before and after.")

    class Meta:
        db_table = "snakepit_audit"
        ordering = ("-id",)
        verbose_name = verbose_name_plural = "audit"
        indexes = [
            models.Index(fields=["pool", "-id"], name="snakepit_audit_pool"),
            models.Index(fields=["actor", "-id"], name="snakepit_audit_actor"),
            models.Index(fields=["action", "-id"], name="snakepit_audit_action"),
        ]

    def __str__(self) -> str:
        return f"{self.actor}: {self.action} {self.target or self.pool}".strip()

    @classmethod
    def prune(cls, seconds: float) -> int:
        """Delete rows older than `seconds`, in batches; returns the number of rows."""
        gone, end = 0, utc_now() - timedelta(seconds=seconds)
        while old := list(cls.objects.filter(at__lt=end).order_by("at").values_list("pk", flat=True)[:BATCH]):
            gone += cls.objects.filter(pk__in=old).delete()[0]
        return gone

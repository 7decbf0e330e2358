"""PoolPeriod: statistics of a pool for a minute or a quarter of an hour, for charts. Written by recorder and beat."""

from __future__ import annotations

from django.db import models

from snakepit.pools.models.moments import MomentField

MINUTE, QUARTER = 60, 900  # seconds


class PoolPeriod(models.Model):
    """One period: counts are sums, workers and memory are averages, waits are maxima; histograms can be merged."""

    node = models.CharField(max_length=200)
    pool = models.CharField(max_length=48)
    seconds = models.PositiveIntegerField(help_text="Length of the period.")
    at = MomentField(help_text="Start of the period.")
    ok = models.PositiveBigIntegerField(default=0)
    failed = models.PositiveBigIntegerField(default=0)
    refused = models.PositiveBigIntegerField(default=0)
    died = models.PositiveBigIntegerField(default=0)
    recycled = models.JSONField(default=dict, help_text="Replaced workers, by reason.")
    ran = models.JSONField(default=dict, help_text="Histogram of run times.")
    queued = models.JSONField(default=dict, help_text="Histogram of queue times.")
    waiting = models.PositiveIntegerField(default=0)
    oldest_wait = models.FloatField(default=0.0)
    ready = models.FloatField(default=0.0)
    busy = models.FloatField(default=0.0)
    starting = models.FloatField(default=0.0)
    draining = models.FloatField(default=0.0)
    slots = models.FloatField(default=0.0)
    taken = models.FloatField(default=0.0)
    memory_mb = models.FloatField(default=0.0)

    class Meta:
        db_table = "snakepit_pool_period"
        ordering = ("-at",)
        constraints = [
            models.UniqueConstraint(fields=["node", "pool", "seconds", "at"], name="snakepit_pool_period_once")
        ]
        indexes = [models.Index(fields=["seconds", "at"], name="snakepit_period_at")]

    def __str__(self) -> str:
        return f"{self.pool} {self.at:%Y-%m-%d %H:%M}"

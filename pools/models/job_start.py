"""JobStart: how many jobs one claim started for a key, kept for the limits of starts within a minute."""

from __future__ import annotations

from django.db import models

from snakepit.pools.models.moments import MomentField


class JobStart(models.Model):
    """Starts of one claim, of jobs with one owner and one limited argument. Only pools with a rate have rows."""

    pool = models.CharField(max_length=48)
    owner = models.CharField(max_length=150, blank=True)
    limit_key = models.CharField(max_length=40, blank=True)
    count = models.PositiveIntegerField()
    at = MomentField(help_text="The database's time of the claim.")

    class Meta:
        db_table = "snakepit_jobstart"
        indexes = [models.Index(fields=["pool", "at"], name="snakepit_jobstart_pool_at")]

    def __str__(self) -> str:
        return f"{self.count} of {self.pool}"

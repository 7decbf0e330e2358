"""JobWorkflow and JobEdge: jobs that wait for the end of other jobs."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from snakepit.pools.models.job import Job, uuid7
from snakepit.pools.models.moments import MomentField

CANCEL, RUN = "cancel", "run"
POLICIES = (CANCEL, RUN)  # what a job does whose predecessor ends without success


class JobWorkflow(models.Model):
    """Jobs that were submitted together, with their edges. Its state is that of its jobs."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=100, blank=True)
    owner = models.CharField(max_length=150, blank=True)
    created_at = MomentField(auto_now_add=True)

    class Meta:
        db_table = "snakepit_workflow"
        ordering = ("-id",)
        verbose_name = "workflow"

    def __str__(self) -> str:
        return self.name or str(self.pk)


class JobEdge(models.Model):
    """`job` waits for the end of `needs`. Edges are written with their jobs and never change."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="edges_in")
    needs = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="edges_out")
    policy = models.CharField(max_length=8, choices=[(one, one) for one in POLICIES], default=CANCEL)
    argument = models.CharField(
        max_length=100, blank=True, help_text="The argument of the job that receives the result; empty: none."
    )
    position = models.PositiveIntegerField(
        null=True, help_text="Its place in the list that the argument receives; NULL: the result alone."
    )

    class Meta:
        db_table = "snakepit_jobedge"
        ordering = ("job", "id")
        constraints = [
            models.CheckConstraint(name="snakepit_jobedge_policy", condition=Q(policy__in=POLICIES)),
            # A predecessor is stored before its successor and has a smaller id, so no cycle is possible.
            models.CheckConstraint(name="snakepit_jobedge_forward", condition=Q(needs__lt=models.F("job"))),
        ]

    def __str__(self) -> str:
        return f"{self.job_id} after {self.needs_id}"

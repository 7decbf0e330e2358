"""The models: desired state (Pool, ApiKey), observed state, written by the recorder, and jobs."""

from snakepit.pools.models.apikey import ApiKey
from snakepit.pools.models.audit import Audit
from snakepit.pools.models.job import Job, JobAttempt, JobEntry
from snakepit.pools.models.job_start import JobStart
from snakepit.pools.models.observed import Event, Node, Worker
from snakepit.pools.models.period import PoolPeriod
from snakepit.pools.models.periodic import PeriodicJob, PeriodicRun
from snakepit.pools.models.pool import Pool
from snakepit.pools.models.workflow import JobEdge, JobWorkflow

__all__ = [
    "ApiKey",
    "Audit",
    "Event",
    "Job",
    "JobAttempt",
    "JobEdge",
    "JobEntry",
    "JobStart",
    "JobWorkflow",
    "Node",
    "PeriodicJob",
    "PeriodicRun",
    "Pool",
    "PoolPeriod",
    "Worker",
]

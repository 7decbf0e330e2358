"""The rows: desired ones, written by people (Pool, ApiKey), observed ones, written by the recorder, and the jobs."""

from pools.models.apikey import ApiKey
from pools.models.audit import Audit
from pools.models.job import Job, JobAttempt, JobEntry
from pools.models.observed import Event, Node, Worker
from pools.models.period import PoolPeriod
from pools.models.pool import Pool

__all__ = ["ApiKey", "Audit", "Event", "Job", "JobAttempt", "JobEntry", "Node", "Pool", "PoolPeriod", "Worker"]

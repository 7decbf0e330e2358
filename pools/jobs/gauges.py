"""The gauges of jobs as Prometheus text. They read rows, so a web process adds them to the broker's metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from django.db import Error
from django.db.models import Count
from django.db.models.functions import Now
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from snakepit.pools.models import Job, PeriodicJob, Pool
from snakepit.pools.models.states import BLOCKED, QUEUED, RUNNING, SCHEDULED

logger = logging.getLogger("snakepit.jobs")
NAME = "snakepit_jobs"
NEXT_RUN, PROBLEM = "snakepit_periodic_next_run_timestamp_seconds", "snakepit_periodic_problem"
PAUSED = "snakepit_pool_queue_paused"
NAMES = frozenset({NAME, NEXT_RUN, PROBLEM, PAUSED})
SHOWN = (SCHEDULED, BLOCKED, QUEUED, RUNNING)


class JobGauges(Collector):
    """The jobs that have not ended, by pool and state. Ended jobs are not counted: a scrape must stay cheap."""

    def collect(self) -> Iterator[Metric]:
        found = GaugeMetricFamily(NAME, "Jobs that have not ended.", labels=["pool", "state"])
        for pool, of_pool in _counts().items():
            for state, count in of_pool.items():
                found.add_metric([pool, state], count)
        yield found
        yield from _periodic()
        paused = GaugeMetricFamily(PAUSED, "1: the jobs of the pool are paused.", labels=["pool"])
        for pool, is_paused in Pool.objects.values_list("name", "queue_paused"):
            paused.add_metric([pool], float(is_paused))
        yield paused


def _counts() -> dict[str, dict[str, int]]:
    """The counts by pool and shown state: three queries, because an index alone answers each."""
    found: dict[str, dict[str, int]] = {}

    def add(pool: str, state: str, count: int) -> None:
        found.setdefault(pool, dict.fromkeys(SHOWN, 0))[state] += count

    queued = Job.objects.filter(state=QUEUED).order_by()
    for pool, count in queued.values_list("pool").annotate(count=Count("pk")):
        add(pool, QUEUED, count)
    for pool, count in queued.filter(run_after__gt=Now()).values_list("pool").annotate(count=Count("pk")):
        add(pool, SCHEDULED, count)
        found[pool][QUEUED] = max(0, found[pool][QUEUED] - count)  # jobs may have come between the queries
    others = Job.objects.filter(state__in=(RUNNING, BLOCKED)).order_by()
    for pool, state, count in others.values_list("pool", "state").annotate(count=Count("pk")):
        add(pool, state, count)
    return found


def _periodic() -> Iterator[Metric]:
    coming = GaugeMetricFamily(NEXT_RUN, "Nominal time of the next run of a periodic job.", labels=["name"])
    problem = GaugeMetricFamily(PROBLEM, "1: the newest run of a periodic job has no job.", labels=["name"])
    for name, moment, why in PeriodicJob.objects.filter(enabled=True).values_list("name", "next_run", "problem"):
        if moment is not None:
            coming.add_metric([name], moment.timestamp())
        problem.add_metric([name], float(bool(why)))
    yield coming
    yield problem


def text() -> str:
    """The gauge, or nothing while the database is away: the broker's metrics are needed then."""
    registry = CollectorRegistry(auto_describe=False)
    try:
        registry.register(JobGauges())
        return generate_latest(registry).decode()
    except Error as error:
        logger.warning("the metrics have no jobs, because the database is unavailable: %s", error)
        return ""

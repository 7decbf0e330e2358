"""Celery tasks: jobs, and the ticks of beat. A tick may run twice; no task stores a result.

Beat is the clock of the lifecycle. `sweep` decides nothing: it only calls the broker of each node.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import shared_task, signals

from snakepit.pools import conf, history
from snakepit.pools.adapters.processes.loaded import freeze_loaded
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client import shared
from snakepit.pools.jobs import (
    attempt,
    celery_connections,
    celery_consumer,
    claimer,
    deletion,
    leases,
    messages,
    runner,
    workflows,
)
from snakepit.pools.jobs.fallback_reconciler import FallbackReconciler
from snakepit.pools.jobs.ticks import Tick
from snakepit.pools.models import Audit, Job
from snakepit.pools.models.moments import utc_now
from snakepit.pools.operations.at_node import others

logger = logging.getLogger("snakepit.tasks")
subscriber = messages.QueueSubscriber()
fallback_reconciler = FallbackReconciler()

# Set on each task and not on the app, whose other tasks belong to the project. A message is acknowledged after its
# task has ended, so that a Celery worker that dies gives it back.
LATE = {"ignore_result": True, "acks_late": True, "reject_on_worker_lost": True}


@shared_task(name="snakepit.sweep", base=Tick, **LATE)
def sweep() -> int:
    """Make the broker of each node check age, memory and health of its workers. Returns how many will be replaced."""
    broker = shared.client()
    return sum(map(_sweep, [broker, *others(broker).values()]))


def _sweep(broker: Any) -> int:
    try:
        return int(broker.sweep("beat", conf.current().sweep_interval).planned)
    except BrokerError as error:
        # Not raised: a restarting broker misses a tick or two, and their tracebacks would hide real problems.
        logger.warning("the sweep did not reach the broker: %s", error)
        return 0


@shared_task(name=messages.TASK, bind=True, **LATE)
def run_job(self: Any, job_id: str, pool: str = "") -> str:
    """Run the jobs of a pool: the message of one is a hint for all. A duplicate hint finds nothing to do.

    Without `pool`, it is that of the job. A task that runs eagerly runs this job alone, and returns its state.
    """
    if self.request.is_eager:
        return runner.run_one(job_id)
    if not pool:
        with leases.db_unit():
            pool = Job.objects.filter(pk=job_id).values_list("pool", flat=True).first() or ""
    return claimer.work(pool) if pool else "gone"


@shared_task(name=messages.RECONCILE, base=Tick, **LATE)
def reconcile() -> dict[str, int]:
    """Free jobs with an expired lease, and resend jobs that were not claimed."""
    return fallback_reconciler.tick()


@shared_task(name="snakepit.rollup", base=Tick, **LATE)
def roll_up() -> int:
    """Aggregate the pools' minutes into quarters of an hour, for the charts."""
    with leases.db_unit():
        return history.roll_up(utc_now())


@shared_task(name="snakepit.prune", base=Tick, **LATE)
def prune() -> int:
    """Delete expired jobs, old audit rows and old history; returns the number of deleted rows."""
    with leases.db_unit():
        return (
            deletion.prune()
            + workflows.prune()
            + Audit.prune(conf.current().audit_retention)
            + history.prune(utc_now())
        )


@signals.worker_init.connect(dispatch_uid="snakepit.consumer", weak=False)
def _outlive_the_transport(sender: Any = None, **_: Any) -> None:
    celery_consumer.install(sender)


@signals.celeryd_after_setup.connect(dispatch_uid="snakepit.connections", weak=False)
def _keep_connections(sender: Any = None, instance: Any = None, **_: Any) -> None:
    celery_connections.install(instance, messages.TASK)


@signals.celeryd_after_setup.connect(dispatch_uid="snakepit.queues", weak=False)
def _join_queues(sender: Any = None, instance: Any = None, **_: Any) -> None:
    if "thread" not in str(instance.pool_cls) or instance.concurrency == 1:
        claimer.one_thread.set()
    if celery_connections.has_greenlets(instance):
        subscriber.refuse(instance)
    else:
        subscriber.at_start(instance)


@signals.celeryd_after_setup.connect(dispatch_uid="snakepit.loaded", weak=False)
def _freeze_loaded(sender: Any = None, **_: Any) -> None:
    freeze_loaded()  # tasks are loaded, and the processes of `prefork` are not yet forked


@signals.worker_ready.connect(dispatch_uid="snakepit.follow", weak=False)
def _follow_pools(sender: Any = None, **_: Any) -> None:
    messages.connection_age.begin()
    subscriber.follow(sender)
    fallback_reconciler.start()


@signals.worker_shutting_down.connect(dispatch_uid="snakepit.stop", weak=False)
def _give_back(sender: Any = None, how: str = "Warm", **_: Any) -> None:
    """Give running attempts a grace period; then their jobs are queued again for other Celery workers."""
    subscriber.leave()
    fallback_reconciler.leave()
    attempt.stopping.begin(conf.current().jobs_stop_grace if how == "Warm" else 0.0)

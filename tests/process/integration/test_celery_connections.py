"""A Celery worker's database connections: kept from job to job, closed by Celery around all other tasks."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import signals
from django.db import connection
from django.db.backends.signals import connection_created

from snakepit.pools.jobs import celery_connections, messages
from snakepit.pools.models import Pool


class Task:
    def __init__(self, name: str) -> None:
        self.name = name


JOB, OTHER = Task(messages.TASK), Task("project.task")


class Fixup:
    """In place of Celery's own for Django, which closes the connections of the thread."""

    def __init__(self) -> None:
        self.closed = 0
        signals.task_prerun.connect(self.on_task_prerun)
        signals.task_postrun.connect(self.on_task_postrun)

    def on_task_prerun(self, **_: Any) -> None:
        self.closed += 1

    on_task_postrun = on_task_prerun


@pytest.fixture
def fixup() -> Iterator[Fixup]:
    both = (signals.task_prerun, signals.task_postrun)
    before = [list(signal.receivers) for signal in both]
    yield Fixup()
    for signal, receivers in zip(both, before, strict=True):
        signal.receivers[:] = receivers
        signal.sender_receivers_cache.clear()
    connection_created.disconnect(dispatch_uid="snakepit.keep")


def worker(fixup: Fixup, pool: str = "celery.concurrency.thread") -> Any:
    return SimpleNamespace(pool_cls=pool, app=SimpleNamespace(_fixups=[SimpleNamespace(worker_fixup=fixup)]))


def run(task: Any) -> None:
    signals.task_prerun.send(sender=task)
    signals.task_postrun.send(sender=task)


def test_celery_closes_no_connection_around_a_job_and_those_of_other_tasks_as_ever(fixup: Fixup) -> None:
    celery_connections.install(worker(fixup), messages.TASK)
    run(JOB)
    assert fixup.closed == 0
    run(OTHER)
    assert fixup.closed == 2


def test_where_each_task_has_a_greenlet_its_connection_is_closed_after_it(fixup: Fixup) -> None:
    celery_connections.install(worker(fixup, "celery.concurrency.gevent"), messages.TASK)
    run(JOB)
    assert fixup.closed == 2


@pytest.mark.django_db(transaction=True)
def test_a_new_connection_outlives_its_unit_and_is_checked_before_the_next(fixup: Fixup) -> None:
    celery_connections.install(worker(fixup), messages.TASK)
    connection.close()
    Pool.objects.count()
    made = connection.connection
    run(JOB)
    assert connection.connection is made
    assert connection.health_check_enabled
    connection.close_at = 0.0  # older than a minute
    run(JOB)
    assert connection.connection is None


@pytest.mark.django_db
def test_a_pool_of_the_settings_is_served_before_a_broker_has_made_its_row(settings: Any) -> None:
    adapters = {"digits": "snakepit.examples.digits.Digits"}
    settings.SNAKEPIT = settings.SNAKEPIT | {"ADAPTERS": adapters, "POOLS": {"early": {"adapter": "digits"}}}
    name = "early"
    assert messages.queue_of(name) in messages.served_queues()
    Pool.objects.create(name=name, adapter="digits", enabled=False)
    Pool.objects.create(name="later", adapter="digits")
    assert messages.queue_of(name) not in messages.served_queues()
    assert messages.queue_of("later") in messages.served_queues()

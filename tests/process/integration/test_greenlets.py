"""Processes that gevent or eventlet has patched: one clear error, and no job that waits forever."""

from __future__ import annotations

import select
from types import SimpleNamespace
from typing import Any

import pytest

from snakepit.pools import tasks
from snakepit.pools.broker.errors import BrokerUnreachable
from snakepit.pools.client import connect, loop_thread
from snakepit.pools.jobs import messages


def worker(*queues: str, pool: str = "celery.concurrency.gevent") -> Any:
    consumed = dict.fromkeys(queues)
    app = SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=consumed)), _fixups=())
    return SimpleNamespace(app=app, pool_cls=pool)


def test_a_call_in_a_patched_process_says_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    loop_thread.stop()
    monkeypatch.delattr(select, "epoll")
    with pytest.raises(BrokerUnreachable, match=r"gevent or eventlet has patched this process.*gunicorn -k gthread"):
        connect("/tmp/no-broker.sock").call("digits", "classify", timeout=5)


def test_a_patched_celery_worker_reads_no_queue_of_a_pool(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    subscriber, instance = messages.QueueSubscriber(), worker("celery")
    monkeypatch.setattr(tasks, "subscriber", subscriber)
    tasks._join_queues(instance=instance)
    assert "this Celery worker cannot run jobs" in caplog.text
    subscriber.follow(instance)  # starts no thread that would join them later
    assert list(instance.app.amqp.queues.consume_from) == ["celery"]


def test_a_patched_celery_worker_of_the_pools_queues_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "subscriber", messages.QueueSubscriber())
    with pytest.raises(SystemExit, match=r"snakepit\.digits: this Celery worker cannot run jobs.*celery -P threads"):
        tasks._join_queues(instance=worker("snakepit.digits", pool="celery.concurrency.eventlet"))

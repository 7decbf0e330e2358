"""Processes that gevent or eventlet has patched: one clear error, and no job that waits forever."""

from __future__ import annotations

import select
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.urls import path

from snakepit.pools import tasks
from snakepit.pools.broker.errors import BrokerUnreachable
from snakepit.pools.checks import check_snakepit
from snakepit.pools.client import connect, loop_thread
from snakepit.pools.jobs import messages
from snakepit.pools.web.greenlets import refuse_asynchronous


def worker(*queues: str, pool: str = "celery.concurrency.gevent") -> Any:
    consumed = dict.fromkeys(queues)
    app = SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=consumed)), _fixups=())
    return SimpleNamespace(app=app, pool_cls=pool)


def test_a_call_in_a_patched_process_says_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    loop_thread.stop()
    monkeypatch.delattr(select, "epoll")
    with pytest.raises(BrokerUnreachable, match=r"gevent or eventlet has patched this process.*gunicorn -k gthread"):
        connect("/tmp/no-broker.sock").call("digits", "classify", timeout=60)


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


@pytest.mark.parametrize("place", ["CELERY_WORKER_POOL", "GUNICORN_CMD_ARGS", "gunicorn.conf.py"])
def test_a_server_that_is_set_up_for_greenlets_is_a_warning(
    place: str, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [one.id for one in check_snakepit()] == []
    if place == "CELERY_WORKER_POOL":
        settings.CELERY_WORKER_POOL = "gevent"
    elif place == "GUNICORN_CMD_ARGS":
        monkeypatch.setenv(place, "--worker-class gevent")
    else:
        (tmp_path / place).write_text("# not eventlet\nworker_class = 'gevent'\nraise SystemExit('it is not run')\n")
    (found,) = check_snakepit()
    assert (found.id, f"{place} names gevent" in found.msg) == ("snakepit.W007", True)
    assert "gunicorn -k gthread" in str(found.hint)


def test_a_probe_of_liveness_and_the_views_that_need_no_thread_stay_in_a_patched_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def view(request: Any) -> None: ...

    def patterns() -> list[Any]:
        return [path("live", view, name="live"), path("call", view, name="call"), path("docs", repr, name="docs")]

    assert [one.callback for one in refuse_asynchronous(patterns())] == [view, view, repr]
    monkeypatch.delattr(select, "epoll")
    live, call, docs = refuse_asynchronous(patterns())
    assert (live.callback, docs.callback) == (view, repr)
    refused = call.callback(None)
    assert (refused.status_code, b"gunicorn -k gthread" in refused.content) == (503, True)

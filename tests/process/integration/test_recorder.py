"""The recorder and the definitions against a real database, from threads of their own."""

from __future__ import annotations

import platform
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import OperationalError, ProgrammingError, connection
from django.db.migrations.recorder import MigrationRecorder

from snakepit.pools import signals
from snakepit.pools.adapters.records import recorder as module
from snakepit.pools.adapters.records.definitions import DatabaseDefinitions
from snakepit.pools.adapters.records.recorder import DatabaseRecorder
from snakepit.pools.broker.events import Event as BrokerEvent
from snakepit.pools.broker.events import Kind
from snakepit.pools.broker.status import BrokerStatus, WorkerStatus
from snakepit.pools.host import host_id, socket_id
from snakepit.pools.models import Event, Node, Pool, Worker
from tests import statuses

pytestmark = pytest.mark.django_db(transaction=True)


def snapshot(*workers: WorkerStatus) -> BrokerStatus:
    return statuses.status(workers=workers)


def worker(ident: str, **more: Any) -> WorkerStatus:
    return statuses.worker(ident, **{"load": 1, "served": 5, **more})


def wait_until(true: Any, seconds: float = 60.0) -> None:
    """Poll until the rows exist: another thread writes them without a notification."""
    deadline = time.monotonic() + seconds
    look = threading.Event()
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        look.wait(0.01)


@pytest.fixture
def running() -> Any:
    recorder = DatabaseRecorder(pause=0.01)
    recorder.start()
    yield recorder
    recorder.stop(60)


def test_events_become_rows_in_their_order(running: DatabaseRecorder) -> None:
    for number in range(1200):
        running.record(1e9 + number, BrokerEvent(Kind.WORKER_STARTED, "digits", f"digits-{number}", data={"n": number}))
    wait_until(lambda: Event.objects.count() == 1200)
    rows = list(Event.objects.order_by("id").values_list("worker", "data", "kind", "node"))
    assert rows == [(f"digits-{n}", {"n": n}, "worker.started", "node-1") for n in range(1200)]


def test_a_snapshot_becomes_a_node_and_its_workers(running: DatabaseRecorder) -> None:
    running.observe(snapshot(worker("digits-1", memory_mb=12.5), worker("digits-2")))
    wait_until(lambda: Worker.objects.count() == 2)
    row = Worker.objects.get(worker_id="digits-1")
    assert (row.node.name, row.pool, row.pid, row.state, row.served, row.memory_mb) == (
        "node-1", "digits", 11, "ready", 5, 12.5,
    )  # fmt: skip
    assert Worker.objects.get(worker_id="digits-2").memory_mb is None
    assert Node.objects.get().pid == 7


def test_a_node_writes_how_others_reach_it_and_its_labels(running: DatabaseRecorder, tmp_path: Path) -> None:
    path = str(tmp_path / "broker.sock")
    Path(path).touch()
    found = snapshot(worker("digits-1"))
    node = replace(found.node, address=path, labels=("gpu=yes",), advertised=("gpu-1:7443",))
    running.observe(replace(found, node=node))
    wait_until(Node.objects.exists)
    row = Node.objects.get()
    assert (row.labels, row.advertised, row.host) == (["gpu=yes"], ["gpu-1:7443"], socket_id(path))
    assert row.host.startswith(host_id())


def test_a_worker_that_left_the_snapshot_is_marked_gone(running: DatabaseRecorder) -> None:
    running.observe(snapshot(worker("digits-1"), worker("digits-2")))
    wait_until(lambda: Worker.objects.count() == 2)
    running.observe(snapshot(worker("digits-2", served=6)))
    wait_until(lambda: Worker.objects.get(worker_id="digits-1").state == "gone")
    assert Worker.objects.get(worker_id="digits-1").gone_at is not None
    assert Worker.objects.get(worker_id="digits-2").served == 6


@pytest.mark.parametrize("kind", [Kind.WORKER_DIED, Kind.WORKER_RECYCLED])
def test_the_row_of_a_worker_that_ended_has_its_last_count_and_the_reason(kind: Kind) -> None:
    recorder = DatabaseRecorder()  # not running: one batch gets all of it
    ended = BrokerEvent(kind, "digits", "digits-1", "crash", "died at work", data={"served": 7})
    recorder.record(1e9, ended)
    recorder.record(1e9, replace(ended, worker="digits-9"))  # of no snapshot
    recorder.observe(snapshot(worker("digits-1", served=0), worker("digits-2", served=3)))
    recorder.start()
    recorder.stop(60)
    rows = Worker.objects.order_by("worker_id").values_list("worker_id", "state", "served", "reason")
    assert list(rows) == [("digits-1", "gone", 7, "crash"), ("digits-2", "gone", 3, "")]


def test_the_last_count_of_a_worker_is_kept_when_its_row_is_marked_gone(running: DatabaseRecorder) -> None:
    running.observe(snapshot(worker("digits-1", served=0)))
    wait_until(Worker.objects.exists)
    running.observe(snapshot())
    wait_until(lambda: Worker.objects.get().state == "gone")
    running.record(1e9, BrokerEvent(Kind.WORKER_DIED, "digits", "digits-1", "crash", data={"served": 7}))
    wait_until(lambda: Worker.objects.get().served == 7)
    assert (Worker.objects.get().state, Worker.objects.get().reason) == ("gone", "crash")


def test_a_stop_writes_what_is_left_and_ends_the_rows() -> None:
    recorder = DatabaseRecorder()
    recorder.start()
    recorder.observe(snapshot(worker("digits-1")))
    recorder.record(1e9, BrokerEvent(Kind.NODE_STOPPING))
    recorder.stop(60)
    assert Event.objects.get().kind == "node.stopping"
    assert Worker.objects.get().state == "gone"
    assert Node.objects.get().stopped


def test_rows_of_a_broker_that_was_killed_are_marked_gone_by_the_next(running: DatabaseRecorder) -> None:
    node = Node.objects.create(name="node-1", seen_at="2026-01-01T00:00Z")
    Worker.objects.create(node=node, worker_id="digits-9", pool="digits", state="ready", seen_at=node.seen_at)
    running.observe(snapshot(worker("digits-1")))
    wait_until(lambda: Worker.objects.filter(worker_id="digits-9", state="gone").exists())
    rows = Worker.objects.order_by("worker_id")
    assert [(row.worker_id, row.state, row.gone_at is None) for row in rows] == [
        ("digits-1", "ready", True),
        ("digits-9", "gone", False),
    ]


def test_text_that_a_database_would_refuse_is_cleaned(running: DatabaseRecorder) -> None:
    data = {"line": "a\0b\ud800", "nan": float("nan")}
    running.record(1e9, BrokerEvent(Kind.WORKER_DIED, "digits", message="x\0y" * 20_000, level="odd", data=data))
    wait_until(Event.objects.exists)
    row = Event.objects.get()
    assert len(row.message) == 10_000
    assert "\0" not in row.message
    assert row.data == {"line": "a�b?", "nan": None}
    assert row.level == "info"


def test_events_outlive_a_loss_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", (0.01,))
    failed, back = threading.Event(), threading.Event()
    recorder = DatabaseRecorder(pause=0.01)
    write = recorder._write

    def away(*args: Any) -> None:
        write(*args)
        if not back.is_set():
            failed.set()
            raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(recorder, "_write", away)
    recorder.start()
    recorder.record(1e9, BrokerEvent(Kind.WORKER_STARTED, worker="digits-1"))
    recorder.observe(snapshot(worker("digits-1")))
    assert failed.wait(60)
    recorder.record(2e9, BrokerEvent(Kind.WORKER_DIED, worker="digits-1"))
    back.set()
    wait_until(lambda: Event.objects.count() == 2)
    recorder.stop(60)
    assert list(Event.objects.order_by("id").values_list("kind", flat=True)) == ["worker.started", "worker.died"]
    assert Worker.objects.count() == 1


def test_the_buffer_is_bounded_and_counts_what_it_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUFFER", 3)
    recorder = DatabaseRecorder()
    for number in range(5):
        recorder.record(1e9, BrokerEvent(Kind.WORKER_STARTED, worker=f"digits-{number}"))
    assert recorder.dropped == 2
    recorder.start()
    recorder.stop(60)
    assert set(Event.objects.values_list("worker", flat=True)) == {"digits-2", "digits-3", "digits-4"}


def test_the_buffer_stays_bounded_when_a_batch_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUFFER", 3)
    recorder = DatabaseRecorder()
    events = [(float(number), BrokerEvent(Kind.WORKER_STARTED, worker=str(number))) for number in range(5)]
    for at, event in events[2:]:
        recorder.record(at, event)
    recorder._give_back(events[:2], None)
    assert [event.worker for _, event in recorder._pending] == ["2", "3", "4"]
    assert recorder.dropped == 2


def test_a_batch_that_cannot_be_written_does_not_stop_the_recorder(
    running: DatabaseRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    running.observe(snapshot(worker("digits-1", started_at=1e300)))  # a moment that no row can hold
    running.record(1e9, BrokerEvent(Kind.NODE_STARTED))
    wait_until(lambda: running._status is None)
    running.record(1e9, BrokerEvent(Kind.NODE_STOPPING))
    wait_until(lambda: Event.objects.filter(kind="node.stopping").exists())
    assert "a batch of events was dropped" in caplog.messages
    assert not Worker.objects.exists()


def test_old_events_are_pruned(settings: Any) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "EVENTS_KEPT": 100}
    recorder = DatabaseRecorder()
    for number in range(150):
        recorder.record(1e9 + number, BrokerEvent(Kind.WORKER_STARTED, worker=str(number)))
    recorder.start()
    recorder.stop(60)
    assert list(Event.objects.order_by("id").values_list("worker", flat=True)) == [str(n) for n in range(50, 150)]


def test_an_idle_broker_writes_nothing(django_assert_num_queries: Any) -> None:
    rows = module._Rows("node-1")
    rows.write(snapshot(worker("digits-1")))
    with django_assert_num_queries(0):
        rows.write(snapshot(worker("digits-1")))
    with django_assert_num_queries(0):
        rows.write(snapshot(worker("digits-1")))


def test_definitions_come_from_rows_and_the_settings_registry() -> None:
    Pool.objects.create(name="digits", adapter="digits", size=3)
    Pool.objects.create(name="lost", adapter="elsewhere")
    loaded = DatabaseDefinitions().load()
    assert [(one.spec.name, one.spec.size, one.adapter_path) for one in loaded.definitions] == [
        ("digits", 3, "snakepit.examples.digits.Digits")
    ]
    assert [name for name, _ in loaded.problems] == ["lost"]
    assert "'elsewhere' is no key of SNAKEPIT['ADAPTERS']" in loaded.problems[0][1]


def test_a_row_that_sql_made_invalid_is_a_problem_of_that_pool_alone() -> None:
    Pool.objects.create(name="digits", adapter="digits")
    Pool.objects.create(name="primes", adapter="primes", size=2)
    Pool.objects.filter(name="primes").update(max_unavailable=9)
    loaded = DatabaseDefinitions().load()
    assert [one.spec.name for one in loaded.definitions] == ["digits"]
    assert loaded.problems == (("primes", "max_unavailable: 9 is more than size 2"),)


def test_the_first_load_writes_the_pools_of_the_settings(settings: Any) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "POOLS": {"digits": {"adapter": "digits", "size": 1}}}
    definitions = DatabaseDefinitions()
    assert [one.spec.name for one in definitions.load().definitions] == ["digits"]
    Pool.objects.update(size=7)
    assert definitions.load().definitions[0].spec.size == 7


def test_nothing_is_written_before_the_last_migration_is_applied(settings: Any) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "POOLS": {"digits": {"adapter": "digits", "size": 1}}}
    last = ("snakepit_pools", "0001_initial")
    MigrationRecorder(connection).record_unapplied(*last)
    definitions = DatabaseDefinitions()
    with pytest.raises(
        ProgrammingError, match=rf"^migrations not applied: 1, from {last[1]} on; run: manage\.py migrate$"
    ):
        definitions.load()
    assert not Pool.objects.exists()
    MigrationRecorder(connection).record_applied(*last)
    assert [one.spec.name for one in definitions.load().definitions] == ["digits"]


def test_settings_that_are_wrong_stop_the_load(settings: Any) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "POOLS": {"digits": {"adapter": "digits", "size": 0}}}
    with pytest.raises(ImproperlyConfigured, match=r'SNAKEPIT\["POOLS"\]\["digits"\]\["size"\]: 0 is outside'):
        DatabaseDefinitions().load()


def test_a_load_in_a_thread_leaves_its_connection_usable() -> None:
    Pool.objects.create(name="digits", adapter="digits")
    seen: list[int] = []

    def load_twice() -> None:
        definitions = DatabaseDefinitions()
        seen.append(len(definitions.load().definitions))
        connection.close()  # as a server that restarted would
        seen.append(len(definitions.load().definitions))
        connection.close()

    thread = threading.Thread(target=load_twice)
    thread.start()
    thread.join(60)
    assert seen == [1, 1]


@pytest.mark.django_db(transaction=True)
def test_a_row_names_its_interpreter_by_key_and_never_by_path(settings: Any) -> None:
    settings.SNAKEPIT = {
        "ADAPTERS": {"digits": "snakepit.examples.digits.Digits"},
        "PYTHONS": {"own": sys.executable, "gone": "/opt/no/python3.13t"},
    }
    Pool.objects.create(name="bad", adapter="digits", size=1, python="/bin/sh")
    Pool.objects.create(name="gone", adapter="digits", size=1, python="gone")
    Pool.objects.create(name="good", adapter="digits", size=1, python="own")
    loaded = DatabaseDefinitions().load()
    gone, good = loaded.definitions
    assert (good.spec.name, good.spec.python, good.unfit) == ("good", sys.executable, "")
    assert good.interpreter.startswith(f"own: CPython {platform.python_version()}")
    assert "/opt/no/python3.13t cannot run workers: there is no such file" in gone.unfit
    ((name, why),) = loaded.problems
    assert name == "bad"
    assert why.startswith("python: '/bin/sh' is not a key of SNAKEPIT['PYTHONS'] (keys: gone, own)")
    with pytest.raises(ValidationError, match="PYTHONS"):
        Pool(name="worse", adapter="digits", size=1, python="/bin/sh").full_clean()


def test_each_event_is_a_signal_and_a_receivers_error_harms_nothing(running: DatabaseRecorder) -> None:
    received: list[tuple[float, str, Kind]] = []

    def bad(**_: Any) -> None:
        raise RuntimeError("a bug of the project")

    def good(at: float, node: str, event: BrokerEvent, **_: Any) -> None:
        received.append((at, node, event.kind))

    signals.event.connect(bad)
    signals.event.connect(good)
    try:
        running.record(1e9, BrokerEvent(Kind.POOL_FAILED, "digits"))
        running.record(1e9 + 1, BrokerEvent(Kind.POOL_RECOVERED, "digits"))
        wait_until(lambda: Event.objects.count() == 2)
    finally:
        signals.event.disconnect(bad)
        signals.event.disconnect(good)
    assert received == [(1e9, "node-1", Kind.POOL_FAILED), (1e9 + 1, "node-1", Kind.POOL_RECOVERED)]

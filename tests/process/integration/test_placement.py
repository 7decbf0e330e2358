"""A pool that names its nodes: definitions, queues, readiness and the doctor agree on where it lives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from snakepit.pools import conf
from snakepit.pools.adapters.records.definitions import DatabaseDefinitions
from snakepit.pools.diagnostics import doctor, services
from snakepit.pools.diagnostics.facts import Unknown
from snakepit.pools.jobs import messages, reconciler
from snakepit.pools.jobs.messages import QueueSubscriber, queue_of, served_queues
from snakepit.pools.models import Job, Node, Pool
from snakepit.pools.models.hosting import hosted
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.pool import sync_pools

pytestmark = pytest.mark.django_db(transaction=True)  # what is tested closes connections


@pytest.fixture
def cluster(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of a node without labels; the pool `gpu` lives where gpu=yes."""
    monkeypatch.delenv("SNAKEPIT_NODE_LABELS", raising=False)
    pools = {"gpu": {"adapter": "digits", "nodes": ["gpu=yes"]}, "plain": {"adapter": "digits"}}
    adapters = {"digits": "snakepit.examples.digits.Digits"}
    settings.SNAKEPIT = {"NODE_NAME": "n1", "ADAPTERS": adapters, "POOLS": pools}
    sync_pools()


def test_every_surface_of_a_node_has_only_its_own_pools(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = DatabaseDefinitions().load()
    assert [one.spec.name for one in loaded.definitions] == ["plain"]
    assert loaded.elsewhere == {"gpu": "gpu=yes"}
    assert hosted() == ["plain"]
    assert queue_of("gpu") not in served_queues()
    monkeypatch.setenv("SNAKEPIT_NODE_LABELS", "gpu=yes,zone=b")
    assert {one.spec.name for one in DatabaseDefinitions().load().definitions} == {"gpu", "plain"}
    assert hosted() == ["gpu", "plain"]
    assert queue_of("gpu") in served_queues()


def test_a_pool_of_settings_that_no_broker_has_written_has_its_place(cluster: None) -> None:
    Pool.objects.all().delete()
    assert served_queues() == {"snakepit.jobs", queue_of("plain")}


def test_a_node_keeps_the_rows_of_pools_that_live_elsewhere(cluster: None) -> None:
    row = Pool.objects.get(name="gpu")
    assert (row.enabled, row.nodes, row.owners) == (True, ["gpu=yes"], ["n1"])
    assert sync_pools() == []


def test_a_row_with_an_invalid_place_lives_nowhere(cluster: None) -> None:
    Pool.objects.create(name="odd", adapter="digits", size=1, nodes={"gpu": 1})
    assert hosted() == ["plain"]
    assert "nodes" in dict(DatabaseDefinitions().load().problems)["odd"]


def test_the_doctor_reads_where_pools_live(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.interpreters, "adapter", lambda *given: Unknown("not asked"))
    now = utc_now()
    Node.objects.create(name="n2", labels=["gpu=yes"], seen_at=now)
    Node.objects.create(name="n3", labels=["zone=b"], seen_at=now - timedelta(days=1))
    database = services.database()
    assert not isinstance(database, Unknown)
    assert {row.name: row.labels for row in database.nodes} == {"n2": ("gpu=yes",), "n3": ("zone=b",)}
    rows = [(row.name, row.to_spec()) for row in Pool.objects.order_by("name")]
    monkeypatch.setattr(doctor, "_rows", lambda: rows)
    with ThreadPoolExecutor() as threads:
        pools = doctor._pools(threads, database)
    assert not isinstance(pools, Unknown)
    assert {one.name: (one.nodes, one.here) for one in pools} == {"gpu": (("gpu=yes",), False), "plain": ((), True)}


def test_labels_that_cannot_be_read_are_refused_by_the_check(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAKEPIT_NODE_LABELS", "gpu yes")
    conf.forget()
    with pytest.raises(ImproperlyConfigured, match="SNAKEPIT_NODE_LABELS: 'gpu yes' is not a label"):
        conf.current()
    conf.forget()


def test_the_environment_names_a_node(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.SNAKEPIT = {}
    monkeypatch.setenv("SNAKEPIT_NODE_NAME", "n7")
    assert conf.node_name() == "n7"
    settings.SNAKEPIT = {"NODE_NAME": "n8"}
    assert conf.node_name() == "n8"


class Control:
    """In place of Celery's control of one worker."""

    def __init__(self) -> None:
        self.reads: set[str] = set()
        self.broken = self.loses = False

    def add_consumer(self, name: str, destination: list[str]) -> None:
        self._check(destination)
        if not self.loses:
            self.reads.add(name)

    def cancel_consumer(self, name: str, destination: list[str]) -> None:
        self._check(destination)
        self.reads.remove(name)

    def consuming_from(self, name: str) -> bool:
        return name in self.reads

    def _check(self, destination: list[str]) -> None:
        assert destination == ["celery@n1"]
        if self.broken:
            raise OSError("the transport is away")


class Queues:
    """In place of Celery's list of queues, empty or as -Q gives it."""

    def __init__(self, *given: str) -> None:
        self._consume_from = dict.fromkeys(given)
        self.consume_from = self._consume_from

    def add(self, name: str) -> None: ...

    def select(self, names: list[str]) -> None:
        self.consume_from = dict.fromkeys(names)


def subscribed(*given: str) -> tuple[QueueSubscriber, Any, Control]:
    queues, control = Queues(*given), Control()
    app = SimpleNamespace(amqp=SimpleNamespace(queues=queues), control=control)
    subscriber = QueueSubscriber()
    subscriber.at_start(SimpleNamespace(app=app))
    control.reads = set(queues.consume_from)
    return subscriber, SimpleNamespace(app=app, hostname="celery@n1", task_consumer=control), control


def test_a_celery_worker_leaves_the_queues_of_a_drained_node_and_comes_back(cluster: None) -> None:
    subscriber, consumer, control = subscribed()
    own = {"snakepit.jobs", "snakepit.plain"}
    assert control.reads == own
    node = Node.objects.create(name="n1", draining=True, seen_at=utc_now())
    control.broken = True
    subscriber.turn(consumer)
    assert control.reads == own
    control.broken = False
    subscriber.turn(consumer)
    assert control.reads == set()
    Node.objects.filter(pk=node.pk).update(draining=False)
    subscriber.turn(consumer)
    assert control.reads == own


def test_an_order_to_join_a_queue_that_gets_lost_is_sent_again(cluster: None) -> None:
    subscriber, consumer, control = subscribed()
    own, node = set(control.reads), Node.objects.create(name="n1", draining=True, seen_at=utc_now())
    subscriber.turn(consumer)
    Node.objects.filter(pk=node.pk).update(draining=False)
    control.loses = True
    subscriber.turn(consumer)
    assert control.reads == set()
    control.loses = False
    subscriber.turn(consumer)
    assert control.reads == own
    consumer.task_consumer = None  # it reconnects
    subscriber.turn(consumer)


def test_with_named_queues_only_the_queues_of_jobs_are_left(cluster: None) -> None:
    subscriber, consumer, control = subscribed("mail", "snakepit.plain")
    Node.objects.create(name="n1", draining=True, seen_at=utc_now())
    subscriber.turn(consumer)
    assert control.reads == {"mail"}


def test_a_drain_of_a_broker_that_is_gone_does_not_keep_jobs_waiting(cluster: None) -> None:
    subscriber, consumer, control = subscribed()
    Node.objects.create(name="n1", draining=True, seen_at=utc_now() - timedelta(minutes=5))
    subscriber.turn(consumer)
    assert control.reads == {"snakepit.jobs", "snakepit.plain"}


def test_a_celery_worker_follows_a_pool_that_moves(cluster: None) -> None:
    subscriber, consumer, control = subscribed()
    Pool.objects.filter(name="plain").update(nodes=["n2"])
    Pool.objects.filter(name="gpu").update(nodes=["n1"])
    subscriber.turn(consumer)
    assert control.reads == {"snakepit.jobs", "snakepit.gpu"}


def test_a_job_that_is_sent_again_stays_on_the_nodes_of_its_pool(
    cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, list[Any]] = {}

    def send_many(ids: list[Any], queue: str, **_: Any) -> messages.Sent:
        sent.setdefault(queue, []).extend(ids)
        return messages.Sent(tuple(ids))

    monkeypatch.setattr(messages, "send_many", send_many)
    jobs = {}
    for pool in ("gpu", "plain"):
        long_ago = utc_now() - timedelta(hours=1)
        row = Job.objects.create(pool=pool, command="echo", arguments={}, queued_at=long_ago, sent_at=long_ago)
        jobs[pool] = row.pk
    reconciler._send_again()
    assert sent == {"snakepit.gpu": [jobs["gpu"]], "snakepit.jobs": [jobs["plain"]]}

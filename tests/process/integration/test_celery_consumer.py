"""Celery's consumer when the message transport dies under it: a real Valkey, killed at the worst moment."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing, suppress
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery
from kombu.asynchronous import Hub

from snakepit.pools.celery_setup import transport_options
from snakepit.pools.jobs import messages
from snakepit.pools.jobs.celery_consumer import AcknowledgementRefused, Consumer, install
from tests import services


def consumer_of(url: str) -> Consumer:
    controller = SimpleNamespace(use_eventloop=False, semaphore=None)
    pool = SimpleNamespace(num_processes=1, is_green=False, flush=None)
    app = Celery("test", broker=url)
    app.conf.worker_cancel_long_running_tasks_on_connection_loss = True  # Celery warns where it is not said
    return Consumer(print, app=app, pool=pool, hub=Hub(), controller=controller)


class Lost:
    """A consumer with a message in hand and two channels, whose Valkey has just died."""

    def __init__(self, server: services.Valkey) -> None:
        self.consumer = consumer_of(server.url)
        app = self.consumer.app
        self.consumer.connection = connection = app.connection_for_read()
        self.messages: list[Any] = []
        # The channel of the tasks comes first, as in a worker; the other is closed before it, and gives up there.
        tasks = connection.Consumer(
            [app.amqp.queues["celery"]], channel=connection.default_channel, accept=["json"],
            callbacks=[lambda _, message: self.messages.append(message)],
        )  # fmt: skip
        app.control.mailbox.Node("test", channel=connection.channel()).listen()
        tasks.consume()
        app.send_task("anything", retry=False)
        while not self.messages:
            connection.drain_events(timeout=60)
        with suppress(socket.timeout):  # until nothing more comes: the question for the next message is on its way
            while True:
                connection.drain_events(timeout=0.05)
        server.kill()


@pytest.fixture
def lost(valkey_url: str) -> Iterator[Lost]:
    # `valkey_url` decides about skipping; the server that is killed here is this test's own.
    with services.restartable_valkey() as server:
        made = Lost(server)
        yield made
        made.consumer.hub.close()
        # What was lost half closed is left to the garbage collector, which warns of its sockets: not in another test.
        made.__dict__.clear()
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):
            gc.collect()


def test_a_connection_that_was_lost_half_closed_does_not_end_the_worker(
    lost: Lost, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "connection_age", messages.ConnectionAge())
    assert messages.connection_age.seconds() is None
    lost.consumer.on_connection_error_after_connected(ConnectionError("gone"))
    assert lost.consumer.connection is None
    assert messages.connection_age.seconds() is not None, "what was sent before may be gone"
    assert "message transport: AttributeError" in caplog.text  # the day this is missing, Celery has mended it


def test_a_task_that_ends_after_the_loss_does_not_end_the_worker(lost: Lost, caplog: pytest.LogCaptureFixture) -> None:
    lost.consumer.on_connection_error_after_connected(ConnectionError("gone"))
    (message,) = lost.messages
    caplog.clear()
    lost.consumer.call_soon_ack(message.ack_log_error, logging.getLogger("test"), lost.consumer.connection_errors)
    lost.consumer.hub.run_once()
    assert "message transport: AttributeError" in caplog.text


class Subscribed:
    """A consumer's connection that waits for remote control only, as that of a worker whose slots are all taken."""

    def __init__(self, server: services.Valkey) -> None:
        self._socket = server.url.removeprefix("redis+socket://")
        consumer = consumer_of(server.url)
        consumer.hub.close()
        consumer.hub = None
        consumer.app.conf.broker_transport_options = transport_options(server.url)
        self.connection = consumer.connect()
        consumer.app.control.mailbox.Node("test", channel=self.connection.channel()).listen()
        self.error: Exception | None = None
        with redis.Redis(unix_socket_path=self._socket) as client:
            while not client.pubsub_numpat():
                self._read(timeout=0.05)

    def _read(self, timeout: float) -> None:
        with suppress(socket.timeout):
            self.connection.drain_events(timeout=timeout)

    def lose(self) -> None:
        """End the connection in Valkey, and read once more. The read may never end, so a thread does it."""
        with redis.Redis(unix_socket_path=self._socket) as client:
            assert client.client_kill_filter(_type="pubsub", skipme=True) == 1
        reader = threading.Thread(target=self._read_again, daemon=True)
        reader.start()
        reader.join(90)

    def _read_again(self) -> None:
        try:
            self._read(timeout=60)
        except Exception as error:
            self.error = error


def test_a_worker_that_reads_no_jobs_notices_that_its_connection_was_lost(valkey_url: str) -> None:
    with services.restartable_valkey() as server:
        subscribed = Subscribed(server)
        assert subscribed.connection.transport_options["global_keyprefix"], "the other options stay"
        subscribed.lose()
        assert isinstance(subscribed.error, redis.exceptions.ConnectionError), "redis-py connected again by itself"
        subscribed.connection.close()


class Message:
    """A message whose acknowledgement fails, as kombu has it."""

    def __init__(self, channel: object, error: Exception) -> None:
        self.channel, self._error = channel, error

    def ack_log_error(self, log: logging.Logger, errors: tuple[type[Exception], ...]) -> None:
        try:
            raise self._error
        except errors:
            log.critical("ignored")


ERRORS = [
    redis.exceptions.OutOfMemoryError("used memory > 'maxmemory'"),
    redis.exceptions.ReadOnlyError("a read only replica"),
    redis.exceptions.ResponseError("MISCONF no space left"),
    redis.exceptions.TimeoutError("a connection error, which Celery ignores here"),
]


def acknowledge(consumer: Consumer, channel: object, error: Exception) -> None:
    consumer.connection = object()
    consumer.task_consumer = SimpleNamespace(channel=channel)
    message = Message("its channel", error)
    consumer.call_soon_ack(message.ack_log_error, logging.getLogger("test"), consumer.connection_errors)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_refused_acknowledgement_makes_celery_reconnect(error: Exception) -> None:
    consumer = consumer_of("redis://nowhere")
    acknowledge(consumer, "its channel", error)
    with closing(consumer.hub) as hub, pytest.raises(consumer.connection_errors, match="not acknowledged"):
        hub.run_once()


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_refused_acknowledgement_on_an_old_channel_is_ignored(error: Exception) -> None:
    consumer = consumer_of("redis://nowhere")
    acknowledge(consumer, "a newer channel", error)
    with closing(consumer.hub) as hub:
        hub.run_once()


def test_a_refused_acknowledgement_reaches_a_worker_without_an_event_loop() -> None:
    consumer = consumer_of("redis://nowhere")
    with closing(consumer.hub):
        consumer.hub = None
        acknowledge(consumer, "its channel", ERRORS[0])
        with pytest.raises(AcknowledgementRefused):
            consumer.perform_pending_operations()
        consumer.perform_pending_operations()


def test_a_worker_that_starts_takes_our_consumer_unless_it_was_given_one() -> None:
    worker = SimpleNamespace(consumer_cls="celery.worker.consumer:Consumer", app=Celery("test"))
    install(worker)
    assert worker.consumer_cls == "snakepit.pools.jobs.celery_consumer:Consumer"
    assert worker.app.conf.broker_channel_error_retry
    worker = SimpleNamespace(consumer_cls="mine:Consumer", app=Celery("test"))
    install(worker)
    assert worker.consumer_cls == "mine:Consumer"
    assert not worker.app.conf.broker_channel_error_retry

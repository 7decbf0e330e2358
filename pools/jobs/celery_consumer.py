"""A Celery consumer that survives the loss of its message transport, and a transport that refuses commands.

a task ends ─▶ call_soon_ack ─▶ _settle ─┬─ acknowledged
                                         ├─ error, the message's channel is gone ─▶ ignored: it is delivered again
                                         └─ error, the channel is in use ─▶ ConnectionResetError ─▶ Celery reconnects

Celery 5.7 drops a lost connection while its tasks continue. Afterwards the connection is used twice more. It is closed
again, and if the first close stopped half-way, a channel tries to return its messages. And a task that ends
acknowledges its message. In both cases kombu raises `AttributeError: 'NoneType' object has no attribute 'hostname'`.
Celery treats this as fatal, and the worker exits with code 1. Such a connection holds nothing worth saving: an
unacknowledged message is delivered again and finds its job done.

A message that cannot be acknowledged on a channel in use keeps its place in the prefetch count. When all places are
taken, the worker reads no message any more, although its connection is well. Redis without free memory (OOM), a full
disk (MISCONF), a replica (READONLY) and a time-out of one command have this effect. A new channel has all places free.

Each loss is recorded too, because a restarted transport may be empty.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

from snakepit.pools.jobs import messages

logger = logging.getLogger("snakepit.jobs")
DEFAULT = "celery.worker.consumer:Consumer"  # Celery's default for `worker_consumer`
PAUSE = 1.0  # seconds before a new connection to a transport that answers with errors


class AcknowledgementRefused(ConnectionResetError):
    """The message transport did not accept an acknowledgement. Every transport reconnects on this type."""


class Consumer(CeleryConsumer):
    _refused: AcknowledgementRefused | None = None

    def ensure_connected(self, conn: Any) -> Any:
        """Connect to the transport, without the retries of redis-py, which hide a lost connection from Celery.

        With `retry_on_timeout`, redis-py repeats a failed read of the remote control on a new connection. This has no
        subscription, and the read has no time-out, so it never ends. A worker with a free slot also waits
        for jobs on a second connection, whose loss makes Celery reconnect. A worker at its limit has none.
        """
        conn.transport_options.pop("retry_on_timeout", None)
        return super().ensure_connected(conn)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        messages.connection_age.begin()
        if connection := self.connection:
            # Only this connection's `close` changes, which is not used any more. An error in it would hide `exc`,
            # which makes Celery reconnect.
            connection.close = functools.partial(_quietly, connection.close)
        super().on_connection_error_after_connected(exc)
        if isinstance(exc, (AcknowledgementRefused, *self.channel_errors)):
            # A transport that refuses commands accepts connections, so nothing else delays the next attempt.
            time.sleep(PAUSE)

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return super().call_soon_ack(functools.partial(self._settle, p), *args, **kwargs)

    def perform_pending_operations(self) -> None:
        super().perform_pending_operations()
        refused, self._refused = self._refused, None
        if refused:
            raise refused

    def _settle(self, settle: Any, log: Any, _: Any = (), *args: Any, **kwargs: Any) -> None:
        """Acknowledge or reject a message. `settle` is the bound method of the message.

        Celery passes its connection errors, which `settle` would log and ignore, although the place stays taken.
        """
        try:
            settle(log, (), *args, **kwargs)
        except Exception as error:
            if not self._in_use(settle.__self__.channel):
                logger.warning("ignored an error of a lost connection to the message transport: %r", error)
                return
            refused = AcknowledgementRefused(f"a message was not acknowledged: {error!r}")
            if self.hub is None:  # Celery ignores what is raised here; its next round raises this
                self._refused = refused
                return
            raise refused from error

    def _in_use(self, channel: Any) -> bool:
        consumer = getattr(self, "task_consumer", None)
        return self.connection is not None and consumer is not None and consumer.channel is channel


def _quietly(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return work(*args, **kwargs)
    except Exception as error:
        logger.warning("ignored an error of a lost connection to the message transport: %r", error)


def install(worker: Any) -> None:
    """Use this consumer in a starting Celery worker, unless the project has set a consumer class."""
    if worker.consumer_cls == DEFAULT:
        worker.consumer_cls = f"{__name__}:{Consumer.__name__}"
        # Other refused commands raise in the event loop: reconnect there too, instead of an exit with code 1.
        worker.app.conf.broker_channel_error_retry = True

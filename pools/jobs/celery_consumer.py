"""A Celery consumer that survives the loss of its message transport.

Celery 5.7 drops a lost connection while its tasks continue. Afterwards the connection is used twice more. It is closed
again, and if the first close stopped half-way, a channel tries to return its messages. And a task that ends
acknowledges its message. In both cases kombu raises `AttributeError: 'NoneType' object has no attribute 'hostname'`.
Celery treats this as fatal, and the worker exits with code 1. Such a connection holds nothing worth saving: an
unacknowledged message is delivered again and finds its job done.

Each loss is recorded too, because a restarted transport may be empty.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

from snakepit.pools.jobs import messages

logger = logging.getLogger("snakepit.jobs")
DEFAULT = "celery.worker.consumer:Consumer"  # Celery's default for `worker_consumer`


class Consumer(CeleryConsumer):
    def on_connection_error_after_connected(self, exc: Exception) -> None:
        messages.connection_age.begin()
        if connection := self.connection:
            # Only this connection's `close` changes, which is not used any more. An error in it would hide `exc`,
            # which makes Celery reconnect.
            connection.close = functools.partial(_quietly, connection.close, ())
        super().on_connection_error_after_connected(exc)

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # Connection errors are raised, because they make Celery reconnect.
        return super().call_soon_ack(functools.partial(_quietly, p, self.connection_errors), *args, **kwargs)


def _quietly(work: Callable[..., Any], raised: tuple[type[Exception], ...], *args: Any, **kwargs: Any) -> Any:
    try:
        return work(*args, **kwargs)
    except raised:
        raise
    except Exception as error:
        logger.warning("ignored an error of a lost connection to the message transport: %r", error)


def install(worker: Any) -> None:
    """Use this consumer in a starting Celery worker, unless the project has set a consumer class."""
    if worker.consumer_cls == DEFAULT:
        worker.consumer_cls = f"{__name__}:{Consumer.__name__}"

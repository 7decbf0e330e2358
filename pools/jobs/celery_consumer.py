"""A Celery consumer that survives the loss of its message transport.

When Celery 5.7 loses a connection, its tasks go on, and it uses the connection twice more. Celery closes it again: if
the first close failed half-way, a channel gives its messages back through it. And a task that ends acknowledges its
message on it. Both times kombu raises `AttributeError: 'NoneType' object has no attribute 'hostname'`. Celery does not
recover from that error, and the worker ends with code 1. Such a connection has nothing left to save: an unacknowledged
message comes again and finds its job done.

The consumer also notes each loss: a transport that died may have come back empty.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

from snakepit.pools.jobs import messages

logger = logging.getLogger("snakepit.jobs")
DEFAULT = "celery.worker.consumer:Consumer"  # of Celery, where no `worker_consumer` is set


class Consumer(CeleryConsumer):
    def on_connection_error_after_connected(self, exc: Exception) -> None:
        messages.unbroken.begin()
        if connection := self.connection:
            # Only of this connection, which is not used any more. An error here would hide `exc`, after which Celery
            # connects again.
            connection.close = functools.partial(_quietly, connection.close, ())
        super().on_connection_error_after_connected(exc)

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # A connection error goes through: it makes Celery connect again.
        return super().call_soon_ack(functools.partial(_quietly, p, self.connection_errors), *args, **kwargs)


def _quietly(work: Callable[..., Any], telling: tuple[type[Exception], ...], *args: Any, **kwargs: Any) -> Any:
    try:
        return work(*args, **kwargs)
    except telling:
        raise
    except Exception as error:
        logger.warning("ignored an error of a lost connection to the message transport: %r", error)


def install(worker: Any) -> None:
    """Have a Celery worker that starts use this consumer, unless the project has chosen a class of its own."""
    if worker.consumer_cls == DEFAULT:
        worker.consumer_cls = f"{__name__}:{Consumer.__name__}"

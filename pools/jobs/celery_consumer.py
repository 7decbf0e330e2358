"""Celery's consumer, which outlives a message transport that dies under it.

Celery 5.7 drops a lost connection with whatever runs: its tasks go on. Two things are asked of it afterwards. It is
closed once more, and where the first time gave up half-way, a channel wants to give its messages back through it. And a
task that ends acknowledges its message on it. Both times kombu answers `AttributeError: 'NoneType' object has no
attribute 'hostname'`, which Celery takes for an error that cannot be mended: the worker ends with code 1. Nothing is
left to be saved on such a connection; a message that stays unacknowledged comes again and finds its job done.

And each loss is noted: a transport that died may have come back empty.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

from snakepit.pools.jobs import messages

logger = logging.getLogger("snakepit.jobs")
DEFAULT = "celery.worker.consumer:Consumer"  # what Celery takes where no `worker_consumer` is set


class Consumer(CeleryConsumer):
    def on_connection_error_after_connected(self, exc: Exception) -> None:
        messages.unbroken.begin()
        if connection := self.connection:
            # Of this connection alone, which nobody uses any more. An error here would hide `exc`, after which Celery
            # connects again.
            connection.close = functools.partial(_quietly, connection.close, ())
        super().on_connection_error_after_connected(exc)

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # A connection error goes through: it is how Celery learns that it has to connect again.
        return super().call_soon_ack(functools.partial(_quietly, p, self.connection_errors), *args, **kwargs)


def _quietly(work: Callable[..., Any], telling: tuple[type[Exception], ...], *args: Any, **kwargs: Any) -> Any:
    try:
        return work(*args, **kwargs)
    except telling:
        raise
    except Exception as error:
        logger.warning("a lost connection to the message transport was left as it is: %r", error)


def install(worker: Any) -> None:
    """Have a Celery worker that starts use it. A consumer class that the project has chosen itself stays."""
    if worker.consumer_cls == DEFAULT:
        worker.consumer_cls = f"{__name__}:{Consumer.__name__}"

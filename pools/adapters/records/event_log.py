"""Writes each event to the log and forwards it to the next recorder."""

from __future__ import annotations

import logging

from snakepit.pools.broker.events import Event
from snakepit.pools.broker.ports import Recorder
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.broker.text import one_line

LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

logger = logging.getLogger("snakepit.events")


class EventLog:
    """A Recorder that logs a readable line, with the same facts as keys of the record."""

    def __init__(self, then: Recorder) -> None:
        self._then = then

    def start(self) -> None:
        self._then.start()

    def record(self, at: float, event: Event) -> None:
        subject = event.worker or event.pool or "node"
        logger.log(
            LEVELS.get(event.level, logging.INFO),
            "%s: %s",
            one_line(subject),
            one_line(event.message or event.kind),
            extra={"action": str(event.kind), "pool": event.pool, "worker": event.worker, "reason": event.reason},
        )
        self._then.record(at, event)

    def observe(self, status: BrokerStatus) -> None:
        self._then.observe(status)

    def stop(self) -> None:
        self._then.stop()

"""Reconciles in a Celery worker where the ticks of beat do not come through.

A tick is a task like any other: where every thread is busy with long jobs it waits behind them, and jobs whose Celery
worker died wait with it. So each worker has a thread that reconciles when no tick ran here for a while; it also bridges
a beat that is down. Twice is no harm: see `upkeep`.
"""

from __future__ import annotations

import logging
import threading
import time

from snakepit.pools import conf
from snakepit.pools.jobs import leases, reconciler

logger = logging.getLogger("snakepit.jobs")
SILENCE = 1.25  # intervals without a tick in this process after which it does without


class FallbackReconciler:
    def __init__(self) -> None:
        self._stop = threading.Event()
        self._last = time.monotonic()

    def tick(self) -> dict[str, int]:
        """Reconcile because beat says so."""
        self._last = time.monotonic()
        with leases.db_unit():
            return reconciler.reconcile()

    def start(self) -> None:
        threading.Thread(target=self._watch, name="snakepit-reconcile", daemon=True).start()

    def leave(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        self._last = time.monotonic()
        try:
            with leases.db_unit():
                reconciler.look_at_clock()  # now, so that leases can be judged when the first of them may end
        except Exception as error:  # the database is away: the first tick looks
            logger.warning("the database's clock could not be read: %s", error)
        while not self._stop.wait(self._left()):
            if self._left() > 0:  # a tick ran meanwhile
                continue
            try:
                found = self.tick()
            except Exception as error:  # the database is away: the next round tries again
                logger.warning("jobs could not be reconciled without a tick of beat: %s", error)
            else:
                level = logging.INFO if any(found.values()) else logging.DEBUG
                logger.log(level, "reconciled without a tick of beat: %s", found)

    def _left(self) -> float:
        return max(0.0, self._last + SILENCE * conf.current().reconcile_interval - time.monotonic())

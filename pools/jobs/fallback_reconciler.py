"""Reconcile jobs in a Celery worker when beat's ticks do not arrive.

A tick is an ordinary task. If all threads are busy with long jobs, it waits behind them, and so do the jobs of a dead
Celery worker. Therefore each Celery worker has a thread that reconciles when no tick ran in it for a while. This also
covers an outage of beat. Reconciling twice does no harm: see `reconciler`.
"""

from __future__ import annotations

import logging
import threading
import time

from snakepit.pools import conf
from snakepit.pools.jobs import leases, reconciler

logger = logging.getLogger("snakepit.jobs")
SILENCE = 1.25  # intervals without a tick after which this thread reconciles


class FallbackReconciler:
    def __init__(self) -> None:
        self._stop = threading.Event()
        self._last = time.monotonic()

    def tick(self) -> dict[str, int]:
        """Reconcile now, on a tick of beat or of this thread."""
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
                reconciler.check_clock()  # early, so that leases are reliable when the first of them may expire
        except Exception as error:  # the database is unavailable: the first tick checks the clock
            logger.warning("cannot read the database's clock: %s", error)
        while not self._stop.wait(self._left()):
            if self._left() > 0:  # a tick ran meanwhile
                continue
            try:
                found = self.tick()
            except Exception as error:  # the database is unavailable: the next round retries
                logger.warning("fallback reconcile failed: %s", error)
            else:
                level = logging.INFO if any(found.values()) else logging.DEBUG
                logger.log(level, "fallback reconcile without a tick of beat: %s", found)

    def _left(self) -> float:
        return max(0.0, self._last + SILENCE * conf.current().reconcile_interval - time.monotonic())

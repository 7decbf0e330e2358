"""Sending a job's id to Celery, and which queues a Celery worker reads.

A pool's jobs go to the queue `snakepit.<pool>`. A worker that was started without -Q reads those of all enabled pools
and the common queue `snakepit.jobs`; pools that are added later are joined by `Joiner`, and a job that nobody took in
time is sent again through the common queue. With -Q a worker reads what it was told and nothing else.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from typing import Any

from django.db import Error

from snakepit.pools import conf
from snakepit.pools.jobs import leases
from snakepit.pools.models import Pool

logger = logging.getLogger("snakepit.jobs")

TASK = "snakepit.run_job"
COMMON = "snakepit.jobs"
NO_APP = 'no Celery app is known, which jobs need and calls do not: SNAKEPIT["CELERY_APP"] names its module'
JOIN = 2.0  # seconds between two looks for new pools: what the first job of one waits
LONGEST_COUNTDOWN = 30.0  # seconds that a Celery worker may hold a message; longer pauses are left to `reconcile`


def queue_of(pool: str) -> str:
    return f"snakepit.{pool}"


def celery_app() -> Any:
    """The project's Celery app. A web process has not imported it, and Celery's own default would not know the way."""
    from celery import current_app
    from django.conf import settings

    named = conf.current().celery_app
    site = str(getattr(settings, "SETTINGS_MODULE", "")).rpartition(".")[0]
    module = named or (f"{site}.celery" if site else "")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if named or error.name not in (module, site):
                raise
    return current_app


def is_known(app: Any) -> bool:
    """Whether the project has a Celery app: Celery's own default one has no address, and would try amqp://localhost."""
    return bool(app.conf.broker_write_url)


def send(job_id: Any, queue: str, delay: float = 0.0) -> bool:
    """Send the hint; False where the message transport is away. Nothing is lost then: `reconcile` sends it later."""
    if delay > LONGEST_COUNTDOWN:
        return False
    try:
        # No retries: the caller is a web request, or holds the slot of another job.
        app = celery_app()
        if not is_known(app):
            logger.warning("job %s is stored, but not sent: %s", job_id, NO_APP)
            return False
        app.send_task(TASK, args=[str(job_id)], queue=queue, countdown=delay or None, retry=False)
    except Exception as error:  # each transport has errors of its own
        logger.warning("job %s is stored, but its message was not sent: %s", job_id, error)
        return False
    return True


class Unbroken:
    """Since when this Celery worker has been connected without a break. What was sent before may be gone.

    A Redis that died keeps nothing, and a worker that starts cannot know what was before it. Meant for one process:
    `unbroken` below; without a Celery worker it never begins.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def begin(self) -> None:
        """Now: the worker starts, or has just lost its connection."""
        self._since = time.monotonic()

    def seconds(self) -> float | None:
        """How long. None: nothing is known, this is no Celery worker."""
        return None if self._since is None else time.monotonic() - self._since


unbroken = Unbroken()


def hosted() -> set[str]:
    """The queues of the pools that are to be served, also of the settings' that no broker has made rows of yet."""
    try:
        rows = dict(Pool.objects.values_list("name", "enabled"))
    except Error as error:
        logger.warning("the pools cannot be read, their queues are joined later: %s", error)
        rows = {}
    pools = {spec.name: spec.enabled for spec in conf.pool_specs()} | rows
    return {COMMON, *(queue_of(name) for name, enabled in pools.items() if enabled)}


class Joiner:
    """Has one Celery worker read the queues of the pools, also of those that are defined while it runs."""

    def __init__(self) -> None:
        self._joined: set[str] = set()
        self._stop = threading.Event()

    def at_start(self, instance: Any) -> None:
        """Before the worker connects: its own list of queues is simply longer."""
        queues = instance.app.amqp.queues
        if getattr(queues, "_consume_from", None):  # -Q was given: that is the list
            self._stop.set()
            return
        with leases.db_unit():
            self._joined = hosted()
        for name in sorted(self._joined):
            queues.add(name)
        queues.select([*queues.consume_from, *sorted(self._joined)])

    def follow(self, consumer: Any) -> None:
        """From the worker's start to its end, look for new pools."""
        if not self._stop.is_set():
            arguments = (consumer.app, consumer.hostname)
            threading.Thread(target=self._watch, args=arguments, name="snakepit-queues", daemon=True).start()

    def leave(self) -> None:
        self._stop.set()

    def _watch(self, app: Any, hostname: str) -> None:
        while not self._stop.wait(JOIN):
            with leases.db_unit():
                found = hosted()
            for name in sorted(found - self._joined):
                try:
                    # Through the worker's own mailbox: its connection belongs to its main thread.
                    app.control.add_consumer(name, destination=[hostname])
                except Exception as error:  # the transport is away, or knows no control: the common queue remains
                    logger.warning("the queue %s is not joined yet: %s", name, error)
                    break
                self._joined.add(name)

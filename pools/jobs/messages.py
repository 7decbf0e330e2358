"""Send job ids to Celery, and choose the queues of a Celery worker.

A pool's jobs go to the queue `snakepit.<pool>`. Without -Q, a Celery worker reads the queues of all enabled pools and
the common queue `snakepit.jobs`; `QueueSubscriber` adds the queues of new pools. A job that is not claimed in time is
sent again through the common queue. With -Q, a Celery worker reads only the given queues.
"""

from __future__ import annotations

import functools
import importlib
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import Error

from snakepit.pools import conf
from snakepit.pools.broker.text import one_line
from snakepit.pools.greenlets import PATCHED
from snakepit.pools.jobs import eager, in_process, leases
from snakepit.pools.jobs.bounded_thread import BoundedThread
from snakepit.pools.models import Pool

logger = logging.getLogger("snakepit.jobs")

TASK = "snakepit.run_job"
RECONCILE = "snakepit.reconcile"
COMMON = "snakepit.jobs"
NO_APP = 'no Celery app found. Jobs need one, calls do not: set SNAKEPIT["CELERY_APP"] to its module'
NO_TRANSPORT = (
    "the Celery app {name} names no message transport: set its broker_url (CELERY_BROKER_URL in Django's settings)"
)
POLL = 2.0  # seconds between two searches for new pools: the longest wait of a new pool's first job
PATIENCE = 1.0  # seconds that the sender of a message, such as a web request, waits for the transport
LONGEST_COUNTDOWN = 30.0  # seconds that a Celery worker may hold a message; `reconcile` handles longer pauses


sender = BoundedThread("snakepit-send", "message transport", PATIENCE)


def queue_of(pool: str) -> str:
    return f"snakepit.{pool}"


def celery_app() -> Any:
    """The project's Celery app. Imports its module, because Celery's default app has no transport."""
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
    """Whether the app has a transport. Celery's default app has none and would try amqp://localhost."""
    return bool(app.conf.broker_write_url)


def why_unknown(app: Any) -> str:
    """Why an app without a transport cannot send: the project has no app, or its app names no URL."""
    return NO_APP if app.main == "default" else NO_TRANSPORT.format(name=app.main)


def runs_here() -> bool:
    """Whether jobs run in the process that sends them: in a test, or by the project's Celery app."""
    return in_process.runner is not None or bool(celery_app().conf.task_always_eager)


def send(job_id: Any, queue: str, delay: float = 0.0) -> bool:
    """Send a job's id; False if the message transport is unavailable or hangs. Then `reconcile` sends it later."""
    if in_process.runner is not None:
        return in_process.runner.send(str(job_id), delay)
    if delay > LONGEST_COUNTDOWN:
        return False
    try:
        app = celery_app()
        if app.conf.task_always_eager:
            if TASK not in app.tasks:
                app.loader.import_default_modules()  # autodiscovery, which only a Celery worker runs by itself
            return eager.run(functools.partial(_eagerly, app.tasks[TASK]), str(job_id))
        if not is_known(app):
            logger.warning("job %s is stored, but its message was not sent: %s", job_id, why_unknown(app))
            return False
        # No retries: the caller is a web request, or a Celery thread that another job needs.
        options = {"queue": queue, "countdown": delay or None, "retry": False}
        sender.run(functools.partial(app.send_task, TASK, args=[str(job_id)], **options))
    except Exception as error:  # each transport has errors of its own
        logger.warning("job %s is stored, but its message was not sent: %s", job_id, error)
        return False
    return True


@dataclass(frozen=True, slots=True)
class Sent:
    """The jobs whose messages were sent. `away`: the transport is unavailable, or hangs."""

    ids: tuple[Any, ...]
    away: bool = False


def send_many(job_ids: Sequence[Any], queue: str, *, total: int = 0) -> Sent:
    """Send ids until half of PATIENCE is over, by one connection. Jobs that run here all run.

    If fewer than `total` are sent, a last message starts a reconcile, which sends the rest.
    """
    sent: list[Any] = []
    try:
        app = None if in_process.runner is not None else celery_app()
        if app is None or app.conf.task_always_eager:
            return Sent(tuple(one for one in job_ids if send(one, queue)))
        if not is_known(app):
            logger.warning("%d jobs are stored, but no message was sent: %s", len(job_ids), why_unknown(app))
            return Sent((), away=True)
        sender.run(functools.partial(_send_many, app, job_ids, queue, total, sent))
    except Exception as error:  # each transport has errors of its own
        unsent = len(job_ids) - len(sent)
        logger.warning("%d jobs are stored, but their messages were not sent: %s", unsent, error)
        return Sent(tuple(sent), away=True)
    return Sent(tuple(sent))


def _send_many(app: Any, job_ids: Sequence[Any], queue: str, total: int, sent: list[Any]) -> None:
    end = time.monotonic() + PATIENCE / 2
    with app.producer_or_acquire() as producer:
        options = {"queue": queue, "retry": False, "producer": producer}
        for one in job_ids:
            if time.monotonic() > end:
                break
            app.send_task(TASK, args=[str(one)], **options)
            sent.append(one)
        if len(sent) < total:
            app.send_task(RECONCILE, **options)


def _eagerly(task: Any, job_id: str) -> str:
    return str(task.apply(args=[job_id], throw=True).result)


class ConnectionAge:
    """How long this Celery worker has been connected without a break. Older messages may be lost.

    A crashed Redis loses all messages, and a new Celery worker has no record of earlier losses. There is one instance
    per process, `connection_age` below; without a Celery worker it never begins.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def begin(self) -> None:
        """Restart the count: the worker starts, or has just lost its connection."""
        self._since = time.monotonic()

    def seconds(self) -> float | None:
        """The age; None: this process is not a Celery worker."""
        return None if self._since is None else time.monotonic() - self._since


connection_age = ConnectionAge()


def served_queues() -> set[str]:
    """The queues of all enabled pools, including pools of the settings that no broker has written as rows yet."""
    try:
        rows = dict(Pool.objects.values_list("name", "enabled"))
    except Error as error:
        logger.warning("cannot read the pools, their queues are added later: %s", error)
        rows = {}
    pools = {spec.name: spec.enabled for spec in conf.pool_specs()} | rows
    return {COMMON, *(queue_of(name) for name, enabled in pools.items() if enabled)}


class QueueSubscriber:
    """Makes one Celery worker read the queues of all pools, including pools that are added while it runs."""

    def __init__(self) -> None:
        self._joined: set[str] = set()
        self._stop = threading.Event()

    def at_start(self, instance: Any) -> None:
        """Add the queues to the worker's list, before it connects."""
        queues = instance.app.amqp.queues
        if getattr(queues, "_consume_from", None):  # -Q was given: only those queues
            self._stop.set()
            return
        with leases.db_unit():
            self._joined = served_queues()
        for name in sorted(self._joined):
            queues.add(name)
        queues.select([*queues.consume_from, *sorted(self._joined)])

    def refuse(self, instance: Any) -> None:
        """Read no pool's queue: the client cannot run in this worker, and its jobs would never end."""
        self._stop.set()
        why = f"this Celery worker cannot run jobs: {PATCHED}"
        asked = [name for name in instance.app.amqp.queues.consume_from if name.startswith(queue_of(""))]
        if asked:  # by -Q
            raise SystemExit(f"{', '.join(asked)}: {why}")
        logger.error("%s", why)

    def follow(self, consumer: Any) -> None:
        """Start the thread that looks for new pools until the worker shuts down."""
        if not self._stop.is_set():
            arguments = (consumer.app, consumer.hostname)
            threading.Thread(target=self._watch, args=arguments, name="snakepit-queues", daemon=True).start()

    def leave(self) -> None:
        self._stop.set()

    def _watch(self, app: Any, hostname: str) -> None:
        while not self._stop.wait(POLL):
            with leases.db_unit():
                found = served_queues()
            for name in sorted(found - self._joined):
                try:
                    # Sent to the worker's own mailbox, because only its main thread may use its connection.
                    app.control.add_consumer(name, destination=[hostname])
                except Exception as error:  # the transport is away or has no control: the common queue remains
                    logger.warning("cannot read the queue %s yet: %s", one_line(name), one_line(error))
                    break
                self._joined.add(name)

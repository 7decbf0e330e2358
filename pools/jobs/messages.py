"""Send hints to Celery, and choose the queues of a Celery worker.

A message is a hint that a pool has work: the Celery worker that gets it claims jobs of the pool until none is left. So
one message is enough for all jobs that a process submits within WINDOW.

A pool's hints go to the queue `snakepit.<pool>`. Without -Q, a Celery worker reads the queues of the enabled pools that
live on its node, and the common queue `snakepit.jobs`; `QueueSubscriber` follows the pools. A job that is not claimed
in time is sent again through the common queue, unless its pool lives on some nodes only. With -Q, a Celery worker reads
only the given queues.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import importlib.util
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import Error

from snakepit.pools import conf
from snakepit.pools.broker.text import one_line
from snakepit.pools.greenlets import PATCHED
from snakepit.pools.jobs import eager, in_process, leases
from snakepit.pools.jobs.bounded_thread import BoundedThread
from snakepit.pools.models import Job
from snakepit.pools.models.hosting import hosted_with, is_draining, is_hosted
from snakepit.pools.models.states import QUEUED

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
WINDOW = 0.05  # seconds that a hint waits after the last one for the same queue
MARKED = 500  # rows of one statement
LONGEST_COUNTDOWN = 30.0  # seconds that a Celery worker may hold a message; `reconcile` handles longer pauses


sender = BoundedThread("snakepit-send", "message transport", PATIENCE)


_configuring = threading.RLock()


def queue_of(pool: str) -> str:
    return f"snakepit.{pool}"


def app_module() -> str:
    """The module of the project's Celery app: the named one, or `celery` beside the settings; it may not exist."""
    from django.conf import settings

    site = str(getattr(settings, "SETTINGS_MODULE", "")).rpartition(".")[0]
    return conf.current().celery_app or (f"{site}.celery" if site else "")


def app_argument() -> str:
    """What `celery -A` takes to find the project's app; empty: no app is known."""
    module = app_module()
    with contextlib.suppress(ModuleNotFoundError, ValueError):  # a package above it is missing, or it has no spec
        if module and importlib.util.find_spec(module) is not None:
            return module.removesuffix(".celery")
    return ""


def celery_app() -> Any:
    """The project's Celery app. Imports its module, because Celery's default app has no transport."""
    from celery import current_app

    if module := app_module():
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if conf.current().celery_app or error.name not in (module, module.rpartition(".")[0]):
                raise
    return configured(current_app)


def configured(app: Any) -> Any:
    """Configure an app, in one thread at a time.

    Celery shows its configuration before `on_after_configure` has added to it: a second thread would find neither the
    transport nor the schedule of `configure_celery`.
    """
    with _configuring:
        app.conf.get("broker_write_url")
    return app


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
    """Send a hint for a job; False if the message transport is unavailable or hangs. Then `reconcile` sends it later.

    True also if the hint is sent at the end of the window that the last one has begun.
    """
    if in_process.runner is not None:
        return in_process.runner.send(str(job_id), delay)
    return delay <= LONGEST_COUNTDOWN and not _send((job_id,), queue, delay).away


@dataclass(frozen=True, slots=True)
class Sent:
    """The jobs whose message was sent. `away`: the transport is unavailable, or hangs."""

    ids: tuple[Any, ...]
    away: bool = False


def send_many(job_ids: Sequence[Any], queue: str) -> Sent:
    """Send one hint for jobs of one pool. Jobs that run here all run."""
    if in_process.runner is not None:
        return Sent(tuple(one for one in job_ids if send(one, queue)))
    return _send(tuple(job_ids), queue) if job_ids else Sent(())


def pass_on(pool: str, pause: float = 0.0) -> None:
    """Send a hint for other Celery workers, without waiting for the transport. A lost one delays jobs, no more.

    With a `pause`, of LONGEST_COUNTDOWN at most, Celery holds the hint, and this waits for the transport.
    """
    if pause > 0:
        _send((), queue_of(pool), pause)
    else:
        hints.add((), queue_of(pool))


def _send(job_ids: tuple[Any, ...], queue: str, delay: float = 0.0) -> Sent:
    try:
        app = celery_app()
        if app.conf.task_always_eager:
            if TASK not in app.tasks:
                app.loader.import_default_modules()  # autodiscovery, which only a Celery worker runs by itself
            eagerly = functools.partial(_eagerly, app.tasks[TASK])
            ended = tuple(one for one in job_ids if eager.run(eagerly, str(one)))
            return Sent(ended, away=len(ended) < len(job_ids))
        if not is_known(app):
            logger.warning("%s stored, but no message was sent: %s", _named(job_ids), why_unknown(app))
            return Sent((), away=True)
        if delay <= 0 and hints.covers(job_ids, queue):
            return Sent(job_ids)
        publish(job_ids, queue, delay)
    except Exception as error:  # each transport has errors of its own
        hints.forget(queue)
        logger.warning("%s stored, but no message was sent: %s", _named(job_ids), error)
        return Sent((), away=True)
    return Sent(job_ids)


def publish(job_ids: Sequence[Any], queue: str, delay: float = 0.0) -> None:
    # No retries: the caller is a web request, or the thread that runs jobs.
    options = {"queue": queue, "countdown": delay or None, "retry": False}
    pool = "" if queue == COMMON else queue.removeprefix(queue_of(""))
    arguments = [str(job_ids[0]) if job_ids else "", pool]
    sender.run(
        functools.partial(_send_again, functools.partial(celery_app().send_task, TASK, args=arguments, **options))
    )


def _send_again(send: Callable[[], Any]) -> None:
    """Send; once more if the connection was lost: the transport may have ended one that was kept open. Twice is safe,
    because a message is a hint."""
    from kombu.exceptions import OperationalError

    try:
        send()
    except OperationalError:
        send()


def _named(job_ids: Sequence[Any]) -> str:
    return f"job {job_ids[0]} is" if len(job_ids) == 1 else f"{len(job_ids)} jobs are"


class Hints:
    """Sends at most one hint of a queue in WINDOW. What comes meanwhile shares one hint at the end of the window."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Also in the child of a fork, which has no timer, and perhaps a lock that stays locked."""
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}
        self._late: dict[str, list[Any]] = {}  # by queue, the jobs that its next hint is for
        self._timer: threading.Timer | None = None

    def covers(self, job_ids: Sequence[Any], queue: str) -> bool:
        """Whether a hint at the end of a window is for these jobs too. If not, the caller sends one now."""
        now = time.monotonic()
        with self._lock:
            if self._until.get(queue, 0.0) > now:
                self._add(job_ids, queue)
                return True
            self._until[queue] = now + WINDOW
            return False

    def add(self, job_ids: Sequence[Any], queue: str) -> None:
        """Send a hint soon."""
        with self._lock:
            self._add(job_ids, queue)

    def _add(self, job_ids: Sequence[Any], queue: str) -> None:
        self._late.setdefault(queue, []).extend(job_ids)
        if self._timer is None:
            self._timer = threading.Timer(WINDOW, self.flush)
            self._timer.daemon = True
            self._timer.start()

    def forget(self, queue: str) -> None:
        """Note that a hint was not sent: the next one does not wait."""
        with self._lock:
            self._until.pop(queue, None)

    def flush(self) -> None:
        """Send the hints that wait."""
        with self._lock:
            late, self._late, self._timer = self._late, {}, None
            self._until.update(dict.fromkeys(late, time.monotonic() + WINDOW))
        for queue, job_ids in late.items():
            try:
                publish(job_ids, queue)
            except Exception as error:  # each transport has errors of its own
                self.forget(queue)
                if job_ids:
                    logger.warning("%s stored, but no message was sent: %s", _named(job_ids), error)
                    _mark_unsent(job_ids)
                else:
                    logger.warning("no hint was sent to other Celery workers of %s: %s", queue, error)


def _mark_unsent(job_ids: Sequence[Any]) -> None:
    """Have the next reconcile send a hint, instead of the first one after JOBS_RESEND."""
    try:
        with leases.db_unit():
            for start in range(0, len(job_ids), MARKED):
                part = job_ids[start : start + MARKED]
                Job.objects.filter(pk__in=part, state=QUEUED, attempts=0, sends=1).update(sent_at=None)
    except Error as error:
        logger.warning("%s sent again after JOBS_RESEND: %s", _named(job_ids), error)


hints = Hints()
os.register_at_fork(after_in_child=hints.reset)
atexit.register(hints.flush)  # a command that ends soon after its submissions


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
    """The queues of the enabled pools that live on this node, including those that no broker has written as rows."""
    try:
        return _queues()
    except Error as error:
        logger.warning("cannot read the pools, their queues are added later: %s", error)
        names = [spec.name for spec in conf.pool_specs() if spec.enabled and is_hosted(spec.nodes)]
        return {COMMON, *map(queue_of, names)}


def _queues() -> set[str]:
    return {COMMON, *map(queue_of, hosted_with({spec.name: spec for spec in conf.pool_specs()}))}


class QueueSubscriber:
    """Makes one Celery worker read the queues of this node's pools, also as these change, and none while it drains."""

    def __init__(self) -> None:
        self._ours: set[str] = set()  # the queues that this has joined at some time
        self._given: set[str] | None = None  # by -Q
        self._stop = threading.Event()

    def at_start(self, instance: Any) -> None:
        """Add the queues to the worker's list, before it connects."""
        queues = instance.app.amqp.queues
        if getattr(queues, "_consume_from", None):  # -Q was given: only those queues
            ours = {name for name in queues.consume_from if name == COMMON or name.startswith(queue_of(""))}
            self._given = self._ours = ours
            return
        with leases.db_unit():
            self._ours = served_queues()
        for name in sorted(self._ours):
            queues.add(name)
        queues.select([*queues.consume_from, *sorted(self._ours)])

    def refuse(self, instance: Any) -> None:
        """Read no pool's queue: the client cannot run in this worker, and its jobs would never end."""
        self._stop.set()
        why = f"this Celery worker cannot run jobs: {PATCHED}"
        asked = [name for name in instance.app.amqp.queues.consume_from if name.startswith(queue_of(""))]
        if asked:  # by -Q
            raise SystemExit(f"{', '.join(asked)}: {why}")
        logger.error("%s", why)

    def follow(self, consumer: Any) -> None:
        """Start the thread that follows pools and drains until the worker shuts down."""
        if not self._stop.is_set() and self._given != set():
            threading.Thread(target=self._watch, args=(consumer,), name="snakepit-queues", daemon=True).start()

    def leave(self) -> None:
        self._stop.set()

    def _watch(self, consumer: Any) -> None:
        while not self._stop.wait(POLL):
            self.turn(consumer)

    def turn(self, consumer: Any) -> None:
        """Join and leave queues, as the rows require now.

        The worker's own consumer has the list of queues that it reads. An order may get lost: Redis keeps none for a
        mailbox that reconnects. A worker that had left its queues for a drain would then never read them again.
        """
        tasks = consumer.task_consumer
        if tasks is None:  # it connects: it will read the queues of the list
            return
        try:
            with leases.db_unit():
                wanted = set() if is_draining() else _queues() if self._given is None else self._given
        except Error as error:
            logger.warning("cannot read the pools; the queues stay as they are: %s", error)
            return
        # Sent to the worker's own mailbox, because only its main thread may use its connection.
        control = consumer.app.control
        self._ours = self._ours | wanted
        joined = {name for name in self._ours if tasks.consuming_from(name)}
        changes = [(name, control.add_consumer) for name in sorted(wanted - joined)]
        changes += [(name, control.cancel_consumer) for name in sorted(joined - wanted)]
        for name, order in changes:
            try:
                order(name, destination=[consumer.hostname])
            except Exception as error:  # the transport is away or has no control: the next turn tries again
                logger.warning("cannot change the queue %s yet: %s", one_line(name), one_line(error))
                break

"""Keep a Celery worker's database connections from job to job.

Opening a connection costs more CPU than the writes of a short job, on SQLite too. Celery closes a thread's connections
before and after each task. For jobs, Django's rule applies instead: a broken connection, or one older than a minute,
is closed. Each unit of work checks it, also without CONN_HEALTH_CHECKS. Other tasks are unchanged.
"""

from __future__ import annotations

import time
from typing import Any

from celery import signals
from django.db import close_old_connections
from django.db.backends.signals import connection_created

from snakepit.pools import greenlets

KEPT = 60.0  # seconds: maximum age of a connection


def has_greenlets(worker: Any) -> bool:
    """Whether the pool of this Celery worker is gevent or eventlet, where the client cannot run."""
    pool = worker.pool_cls if isinstance(worker.pool_cls, str) else worker.pool_cls.__module__
    return any(one in pool for one in greenlets.NAMES)


def install(worker: Any, task: str) -> None:
    """Make this Celery worker's threads keep their connections between runs of one task."""
    if has_greenlets(worker):  # each task would leave an open connection behind
        return
    # Celery has no public way: its only setting for it counts the tasks of all threads together. Without these names
    # Celery's own rule stays, which is correct and costs more.
    for fixup in getattr(worker.app, "_fixups", ()):
        theirs = getattr(fixup, "worker_fixup", None)
        if theirs is not None:
            _replace(signals.task_prerun, theirs.on_task_prerun, task)
            _replace(signals.task_postrun, theirs.on_task_postrun, task)
            connection_created.connect(_keep, dispatch_uid="snakepit.keep", weak=False)


def _replace(signal: Any, theirs: Any, task: str) -> None:
    def ours(sender: Any = None, **facts: Any) -> None:
        if sender.name == task:
            close_old_connections()
        else:
            theirs(sender=sender, **facts)

    signal.disconnect(theirs)
    signal.connect(ours, weak=False)


def _keep(connection: Any, **_: Any) -> None:
    connection.health_check_enabled = True
    if connection.close_at is not None:  # None: the project keeps its connections forever
        connection.close_at = max(connection.close_at, time.monotonic() + KEPT)

"""Database connections of a Celery worker, kept from job to job.

A connection costs more CPU than the writes of a short job, on SQLite too. Celery closes those of a thread before and
after each task. Jobs follow Django's rule instead: a connection that broke, or is older than a minute, is closed. It is
checked before each unit of work, also without CONN_HEALTH_CHECKS. Celery's rule stays for other tasks.
"""

from __future__ import annotations

import time
from typing import Any

from celery import signals
from django.db import close_old_connections
from django.db.backends.signals import connection_created

KEPT = 60.0  # longest use of a connection, in seconds
GREENLETS = ("gevent", "eventlet")


def install(worker: Any, task: str) -> None:
    """Have the threads of this Celery worker keep their connections between runs of the task of this name."""
    pool = worker.pool_cls if isinstance(worker.pool_cls, str) else worker.pool_cls.__module__
    if any(one in pool for one in GREENLETS):  # each task would leave one behind
        return
    # Celery has no public way: its only setting for it counts the tasks of all threads together. Without these names
    # its own rule stays, which costs more and is not wrong.
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
    if connection.close_at is not None:  # None: the project keeps its connections for ever
        connection.close_at = max(connection.close_at, time.monotonic() + KEPT)

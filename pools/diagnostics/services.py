"""Reads facts of the database and the message transport, with time limits; writes to neither."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.apps import apps
from django.db import Error, connections
from django.db.models import Q

from snakepit.pools.celery_setup import LINES, find_missing_entries
from snakepit.pools.diagnostics.facts import (
    ApiKeyFacts,
    CeleryFacts,
    DatabaseFacts,
    NodeRowFacts,
    TransportFacts,
    Unknown,
)
from snakepit.pools.diagnostics.transport_watch import ping
from snakepit.pools.jobs import limits, messages
from snakepit.pools.jobs.bounded_thread import BoundedThread, Hangs
from snakepit.pools.models import ApiKey, Job, Node, Pool, schema
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.states import QUEUED

REACH = 3.0  # seconds for the message transport to answer a ping
PING = 1.5  # seconds that Celery workers have to answer
PATIENCE = 10.0  # seconds for all questions; a frozen server keeps its connections open, and no time-out ends them all

asker = BoundedThread("snakepit-doctor", "message transport", PATIENCE)
pinger = BoundedThread("snakepit-doctor-ping", "message transport", REACH)


def database() -> DatabaseFacts | Unknown:
    """The database of this app; Unknown if it does not answer. Raises nothing."""
    connection: Any = connections[schema.alias()]
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite" and not connection.is_in_memory_db() and not os.path.exists(name):
        # Not opened, because that would create it.
        return Unknown(f"{name} does not exist yet: python manage.py migrate{schema.option()}")
    try:
        with connection.cursor() as cursor:
            return _database(connection, cursor)
    except Error as error:
        return Unknown(f"the database does not answer: {_first_line(error)}")
    finally:
        connection.close()


def _database(connection: Any, cursor: Any) -> DatabaseFacts:
    unapplied = schema.unapplied()
    known: dict[str, Any] = {
        "vendor": connection.vendor,
        "name": str(connection.settings_dict["NAME"]),
        "version": ".".join(map(str, connection.get_database_version())),
        "unapplied": unapplied,
        "drift": None,
    }
    if connection.vendor == "sqlite":
        options = connection.settings_dict.get("OPTIONS", {})
        cursor.execute("PRAGMA journal_mode")
        known["journal"] = str(cursor.fetchone()[0]).lower()
        known["immediate"] = str(options.get("transaction_mode", "")).upper() == "IMMEDIATE"
        cursor.execute("PRAGMA busy_timeout")
        known["timeout"] = cursor.fetchone()[0] / 1000
    elif connection.vendor == "postgresql":
        known |= _postgresql(cursor)
    if not unapplied:
        known |= _rows()
    return DatabaseFacts(**known)


def _postgresql(cursor: Any) -> dict[str, Any]:
    began = time.time()
    cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
    there = float(cursor.fetchone()[0])
    drift = there - (began + time.time()) / 2
    cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
    taken = int(cursor.fetchone()[0])
    cursor.execute("SHOW max_connections")
    return {"drift": drift, "connections": taken, "most_connections": int(cursor.fetchone()[0])}


def _rows() -> dict[str, Any]:
    now = utc_now()
    nodes = tuple(
        NodeRowFacts(
            name=row.name,
            address=row.address,
            pid=row.pid,
            stopped=row.stopped,
            silent=max(0.0, row.silence.total_seconds()),
            labels=tuple(map(str, row.labels)),
        )
        for row in Node.objects.with_silence()
    )
    alive = Q(expires_at__isnull=True) | Q(expires_at__gt=now)
    keys = tuple(ApiKeyFacts(name=row.name, days_left=_days(row.expires_at, now)) for row in _usable(alive))
    due = Job.objects.filter(Q(run_after__isnull=True) | Q(run_after__lte=now), state=QUEUED)
    due = due.exclude(pool__in=Pool.objects.filter(queue_paused=True).values("name"))  # they wait on purpose
    due = due.exclude(pool__in=limits.holding_pools())
    since = [max(queued, after or queued) for queued, after in due.values_list("queued_at", "run_after")[:1000]]
    oldest = (now - min(since)).total_seconds() if since else 0.0
    return {
        "nodes": nodes,
        "keys": keys,
        "has_jobs": Job.objects.exists(),
        "jobs_overdue": due.count(),
        "jobs_oldest": oldest,
    }


def _usable(alive: Q) -> Any:
    return ApiKey.objects.filter(alive, revoked_at__isnull=True, owner__is_active=True)


def _days(end: datetime | None, now: datetime) -> float | None:
    return None if end is None else (end - now).total_seconds() / 86_400


def transport() -> TransportFacts | Unknown:
    """Celery's transport and the workers that answer through it."""
    try:
        app = messages.celery_app()
        connection = app.connection_for_write()
    except Exception as error:  # a project's own module, and each transport has errors of its own
        return Unknown(f"the Celery app cannot be loaded: {_first_line(error)}")
    if not messages.is_known(app):
        return Unknown(messages.why_unknown(app))
    url = connection.as_uri()  # hides the password
    if not connection.password:
        url = url.replace(":**@", "")
    scheme = url.partition(":")[0]
    if scheme == "filesystem":
        why = "messages are files: Celery workers cannot be asked through them"
        return TransportFacts(url=url, scheme=scheme, workers=Unknown(why))
    try:
        connection.transport  # noqa: B018  # its import may take seconds, which are no silence of the server
        pinger.run(functools.partial(ping, connection.clone(), REACH))
        known = asker.run(functools.partial(_ask, app, connection, scheme))
    except Hangs as error:
        return TransportFacts(url=url, scheme=scheme, error=str(error))
    except Exception as error:
        return TransportFacts(url=url, scheme=scheme, error=_first_line(error))
    return TransportFacts(url=url, scheme=scheme, **known)


def _ask(app: Any, connection: Any, scheme: str) -> dict[str, Any]:
    with connection:
        connection.ensure_connection(max_retries=0, timeout=REACH)
        server = _redis(connection) if "redis" in scheme else {}
        workers = _workers(app, connection)
        return {"workers": workers, "worker_pools": _worker_pools(app, connection, workers), **server}


def celery() -> CeleryFacts | Unknown:
    """The project's Celery app: what its beat lacks."""
    try:
        app = messages.celery_app()
        scheduled = dict(app.conf.beat_schedule or {})
        name, scheduler = str(app.main), str(app.conf.beat_scheduler)
    except Exception as error:  # a project's own module
        return Unknown(f"the Celery app cannot be loaded: {_first_line(error)}")
    if name == "default":
        return Unknown(messages.NO_APP)
    if "django_celery_beat" in scheduler:
        scheduled |= _stored_entries()
    missing = tuple(find_missing_entries(scheduled))
    return CeleryFacts(app=name, argument=messages.app_argument(), missing=missing, line=LINES)


def _stored_entries() -> dict[str, dict[str, str]]:
    """The enabled entries of django-celery-beat, whose table the DatabaseScheduler reads."""
    with contextlib.suppress(LookupError, Error):
        label = "django_celery_beat.PeriodicTask"  # its app may be absent
        model: Any = apps.get_model(label)
        rows = model.objects.filter(enabled=True)
        return {name: {"task": task} for name, task in rows.values_list("name", "task")}
    return {}


def _redis(connection: Any) -> dict[str, Any]:
    """Facts of a Redis or Valkey server; a managed one may forbid `INFO`."""
    client = connection.default_channel.client
    began = time.time()
    seconds, micros = client.time()
    known: dict[str, Any] = {"drift": seconds + micros / 1e6 - (began + time.time()) / 2}
    with contextlib.suppress(Exception):
        info = client.info()
        policy = str(info.get("maxmemory_policy", ""))
        known["evicts"] = "" if policy in ("", "noeviction") or not info.get("maxmemory") else policy
        known["persistent"] = bool(info.get("aof_enabled"))
    return known


def _workers(app: Any, connection: Any) -> dict[str, frozenset[str]]:
    inspect = app.control.inspect(timeout=PING, connection=connection)
    queues = inspect.active_queues() or {}
    return {name: frozenset(one["name"] for one in reads or ()) for name, reads in queues.items()}


def _worker_pools(app: Any, connection: Any, workers: Mapping[str, Any]) -> dict[str, str]:
    """The kind of pool of each Celery worker: threads, prefork, solo, gevent."""
    if not workers:
        return {}
    inspect = app.control.inspect([*workers], timeout=PING, connection=connection, limit=len(workers))
    stats = inspect.stats() or {}
    found = {name: str(one.get("pool", {}).get("implementation", "")) for name, one in stats.items()}
    # Such as celery.concurrency.thread:TaskPool.
    kinds = {name: text.partition(":")[0].rpartition(".")[2] for name, text in found.items()}
    return {name: "threads" if kind == "thread" else kind for name, kind in kinds.items() if kind}


def _first_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

"""Room for a job: the limits of queued jobs of a pool, an owner and an API key, by number and by size of arguments.

The job is inserted first and then counted in the same transaction, so that concurrent submissions see each other. On
SQLite an insert excludes other writers. On PostgreSQL a lock of the pool orders submissions that are near a limit.
A bulk submission is counted once, after its last insert. Until its commit, single submissions far below the limit may
pass it, by NEAR jobs at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.db.models import Count, Q, Sum

from snakepit.pools import conf
from snakepit.pools.broker.caller import CallerIdentity, part_of
from snakepit.pools.broker.errors import BrokerError, QueueFull
from snakepit.pools.broker.quotas import reached
from snakepit.pools.models import Job, schema
from snakepit.pools.models.states import WAITING

NEAR = 64  # jobs below a limit, and concurrent submissions, from which on they are ordered
PAUSE = 5.0  # seconds until a refused caller should try again


@dataclass(frozen=True, slots=True)
class Room:
    """One limit and its use, the new job included."""

    of: str  # pool, key or owner
    name: str
    limit: str
    used: int
    most: int

    @property
    def error(self) -> BrokerError:
        if self.of != "pool":
            return reached(self.of, self.name, self.limit, self.most, PAUSE)
        unit, setting = ("queued jobs", "JOBS_QUEUED_LIMIT") if self.limit == "jobs_waiting" else (
            "bytes of queued jobs", "JOBS_QUEUED_BYTES"
        )  # fmt: skip
        message = f"The pool {self.name!r} has {self.most} {unit}, the limit of SNAKEPIT['{setting}']."
        return QueueFull(message, retry_after=PAUSE, details={"limit": self.most})


def check_room(pool: str, size: int, caller: CallerIdentity | None, count: int = 1) -> None:
    """Refuse the jobs that were just inserted in this transaction if a limit is exceeded. `size`: of all of them."""
    rooms = tuple(_rooms(pool, caller))
    connection = connections[schema.alias()]
    if connection.vendor == "postgresql" and any(room.used + _slack(room, size, count) > room.most for room in rooms):
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_xact_lock(hashtext(%s))", [f"snakepit jobs of {pool}"])
        rooms = tuple(_rooms(pool, caller))
    for room in rooms:
        if room.used > room.most:
            raise room.error


def _slack(room: Room, size: int, count: int) -> int:
    return NEAR * count if room.limit == "jobs_waiting" else NEAR * max(size, room.used // 100)


def use_of(pool: str, caller: CallerIdentity) -> dict[str, Any]:
    """The queued jobs of a caller in a pool, for its own status."""
    return {f"{room.of}_{room.limit}": {"used": room.used, "limit": room.most} for room in _rooms(pool, caller)}


def _rooms(pool: str, caller: CallerIdentity | None) -> Iterator[Room]:
    settings = conf.current()
    scopes = list(caller.scopes()) if caller else []
    sums: dict[str, Any] = {"pool_jobs": Count("pk"), "pool_bytes": Sum("size", default=0)}
    for kind, name, _, _ in scopes:
        mine = Q(**{kind: name})
        sums |= {f"{kind}_jobs": Count("pk", filter=mine), f"{kind}_bytes": Sum("size", filter=mine, default=0)}
    used = Job.objects.filter(pool=pool, state__in=WAITING).order_by().aggregate(**sums)
    for kind, name, limits, share in scopes:
        jobs = min(limits.jobs_waiting or settings.jobs_queued_limit, part_of(share, settings.jobs_queued_limit))
        most = min(limits.jobs_waiting_bytes or settings.jobs_queued_bytes, part_of(share, settings.jobs_queued_bytes))
        yield Room(kind, name, "jobs_waiting", used[f"{kind}_jobs"], jobs)
        yield Room(kind, name, "jobs_waiting_bytes", used[f"{kind}_bytes"], most)
    yield Room("pool", pool, "jobs_waiting", used["pool_jobs"], settings.jobs_queued_limit)
    yield Room("pool", pool, "jobs_waiting_bytes", used["pool_bytes"], settings.jobs_queued_bytes)

"""Room for a job: the limits of queued jobs of a pool, an owner and an API key, by number and by size of arguments.

The job is inserted first and then counted in the same transaction, so that concurrent submissions see each other. On
SQLite an insert excludes other writers. On PostgreSQL a lock of the pool orders submissions that are near a limit.
A bulk submission is counted once, after its last insert. Until its commit, single submissions far below the limit may
pass it, by NEAR jobs at most.

Far from every limit, a process counts once for up to 64 submissions: see `allowance`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.db.models import Count, Q, Sum

from snakepit.pools import conf
from snakepit.pools.broker.caller import CallerIdentity, part_of
from snakepit.pools.broker.errors import BrokerError, QueueFull
from snakepit.pools.broker.quotas import reached
from snakepit.pools.jobs.allowance import Allowances
from snakepit.pools.models import Job, schema
from snakepit.pools.models.states import WAITING

LIMITS = ("jobs_waiting", "jobs_waiting_bytes")
NEAR = 64  # jobs below a limit, and concurrent submissions, from which on they are ordered
PAUSE = 5.0  # seconds until a refused caller should try again

_allowances = Allowances()


def forget() -> None:
    """Count at the next submission. The child of a fork begins so, because a thread may have held the lock."""
    global _allowances
    _allowances = Allowances()


os.register_at_fork(after_in_child=forget)


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
    if not is_far(pool, size, caller, count):
        count_room(pool, size, caller, count)


def is_far(pool: str, size: int, caller: CallerIdentity | None, count: int = 1) -> bool:
    """Whether these jobs need no count: a recent one found each limit far away."""
    key = _key(pool, _limits(caller), caller)
    return _allowances.take(key, jobs=count, size=size, now=time.monotonic())


def count_room(pool: str, size: int, caller: CallerIdentity | None, count: int = 1) -> None:
    """As `check_room`, always by a count."""
    now = time.monotonic()
    rooms = tuple(_rooms(pool, caller))
    connection = connections[schema.alias()]
    if connection.vendor == "postgresql" and any(room.used + _slack(room, size, count) > room.most for room in rooms):
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_xact_lock(hashtext(%s))", [f"snakepit jobs of {pool}"])
        rooms = tuple(_rooms(pool, caller))
    for room in rooms:
        if room.used > room.most:
            raise room.error
    left = {limit: min(room.most - room.used for room in rooms if room.limit == limit) for limit in LIMITS}
    key = _key(pool, _limits(caller), caller)
    _allowances.grant(key, jobs_left=left["jobs_waiting"], bytes_left=left["jobs_waiting_bytes"], now=now)


def _slack(room: Room, size: int, count: int) -> int:
    return NEAR * count if room.limit == "jobs_waiting" else NEAR * max(size, room.used // 100)


def use_of(pool: str, caller: CallerIdentity) -> dict[str, Any]:
    """The queued jobs of a caller in a pool, for its own status."""
    return {f"{room.of}_{room.limit}": {"used": room.used, "limit": room.most} for room in _rooms(pool, caller)}


def _limits(caller: CallerIdentity | None) -> tuple[tuple[str, int, int], ...]:
    """The jobs and the bytes that may wait in a pool: of the caller's key and owner, then of the pool itself."""
    settings, found = conf.current(), []
    for kind, _, limits, share in caller.scopes() if caller else ():
        jobs = min(limits.jobs_waiting or settings.jobs_queued_limit, part_of(share, settings.jobs_queued_limit))
        most = min(limits.jobs_waiting_bytes or settings.jobs_queued_bytes, part_of(share, settings.jobs_queued_bytes))
        found.append((kind, jobs, most))
    return (*found, ("pool", settings.jobs_queued_limit, settings.jobs_queued_bytes))


def _key(pool: str, limits: Hashable, caller: CallerIdentity | None) -> Hashable:
    return (schema.alias(), pool, tuple(caller.names) if caller else (), limits)


def _rooms(pool: str, caller: CallerIdentity | None) -> Iterator[Room]:
    names = dict(caller.names) if caller else {}
    # By `size`, which the index has; the primary key would need each row.
    sums: dict[str, Any] = {"pool_jobs": Count("size"), "pool_bytes": Sum("size", default=0)}
    for kind, name in names.items():
        mine = Q(**{kind: name})
        sums |= {f"{kind}_jobs": Count("size", filter=mine), f"{kind}_bytes": Sum("size", filter=mine, default=0)}
    used = Job.objects.filter(pool=pool, state__in=WAITING).order_by().aggregate(**sums)
    for kind, jobs, most in _limits(caller):
        name = names.get(kind, pool)
        yield Room(kind, name, "jobs_waiting", used[f"{kind}_jobs"], jobs)
        yield Room(kind, name, "jobs_waiting_bytes", used[f"{kind}_bytes"], most)

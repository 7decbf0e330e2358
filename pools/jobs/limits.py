"""Limits of a pool's jobs by pool, owner or argument: how many run together, and how many start within a minute.

The rules are `job_limits` of the pool's row. A claim of such a pool holds a lock of the database, so that claims on all
nodes follow each other: it counts what runs and what has started, and takes no job of a key that has nothing left.

PostgreSQL   an advisory lock of the pool, until the claim commits
SQLite       the lock of the only writer
others       the row of the pool

>>> usage = KeyUsage((JobLimit("owner", running=2),), running=[("ada", "", 1)], started=[])
>>> waiting = [(1, "ada", ""), (2, "ada", ""), (3, "bob", "")]
>>> pick(lambda full, taken: [row for row in waiting if row[1] not in full.owners and row[0] not in taken], usage, 9)
[1, 3]
>>> usage.reason("ada", "")
'waits for the limit of 2 running jobs by owner'
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import connections
from django.db.models import Count, Exists, Min, OuterRef, Q, QuerySet, Sum
from django.db.models.functions import Now

from snakepit.pools.broker.job_limits import ARGUMENT, JobLimit, find_problem, key_of, parse
from snakepit.pools.jobs.columns import moment
from snakepit.pools.jobs.fairness import Full
from snakepit.pools.models import Job, JobStart, Pool, schema
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.states import QUEUED, RUNNING

WINDOW = 60.0  # seconds of a rate
KEPT = 120.0  # seconds after which starts are deleted
JUMP = 5.0  # seconds in the future from which on a start is left over from before a clock was set back
PAGES = 64  # pages of candidates that one claim reads
Counts = Iterable[tuple[str, str, int]]  # (owner, key of the argument, jobs)


class KeyUsage:
    """What each key of a pool's limits has left. Pure."""

    def __init__(self, limits: Sequence[JobLimit], running: Counts, started: Counts) -> None:
        self._limits = limits
        self._running: Counter[tuple[str, str]] = Counter()
        self._started: Counter[tuple[str, str]] = Counter()
        self.rated = False  # whether a rate has refused a job, or has left a key out
        self.running_of_owners: Counter[str] = Counter()
        running = list(running)
        for owner, _, count in running:
            self.running_of_owners[owner] += count
        for counter, counts in ((self._running, running), (self._started, started)):
            for owner, key, count in counts:
                for limit in limits:
                    if (name := _key(limit, owner, key)) is not None:
                        counter[limit.by, name] += count

    def reason(self, owner: str, key: str) -> str:
        """Why a job may not start now; empty: it may."""
        for limit in self._limits:
            if (name := _key(limit, owner, key)) is not None and (why := self._reached(limit, name)):
                return why
        return ""

    def add(self, owner: str, key: str) -> None:
        """Count a job that starts."""
        for limit in self._limits:
            if (name := _key(limit, owner, key)) is not None:
                self._running[limit.by, name] += 1
                self._started[limit.by, name] += 1

    def full(self) -> Full:
        """The keys with nothing left."""
        known = self._running.keys() | self._started.keys()
        found = [(limit.by, name) for limit in self._limits for by, name in known
                 if by == limit.by and self._reached(limit, name)]  # fmt: skip
        return Full(
            any(by == "pool" for by, _ in found),
            frozenset(name for by, name in found if by == "owner"),
            frozenset(name for by, name in found if by.startswith(ARGUMENT)),
        )

    def _reached(self, limit: JobLimit, name: str) -> str:
        if limit.per_minute is not None and self._started[limit.by, name] >= limit.per_minute:
            self.rated = True
            return f"waits for the limit of {limit.per_minute} started jobs a minute by {limit.by}"
        if limit.running is not None and self._running[limit.by, name] >= limit.running:
            return f"waits for the limit of {limit.running} running jobs by {limit.by}"
        return ""


def _key(limit: JobLimit, owner: str, key: str) -> str | None:
    """The key of a job for this limit; None: the limit does not count it."""
    if limit.by.startswith(ARGUMENT):
        return key or None  # empty: submitted before the limit existed
    return owner if limit.by == "owner" else ""


Page = Callable[[Full, Sequence[Any]], Iterable[tuple[Any, str, str]]]


def pick(page: Page, usage: KeyUsage, most: int) -> list[Any]:
    """The ids of the jobs to start, in order. `page` has the next candidates without full keys and without ids.

    A page that holds a refused job has made a key full, so that the next page has other jobs.
    """
    picked: list[Any] = []
    for _ in range(PAGES):
        full, refused = usage.full(), False
        if full.pool:
            break
        for job_id, owner, key in page(full, picked):
            if len(picked) == most:
                return picked
            if usage.reason(owner, key):
                refused = True
                continue
            picked.append(job_id)
            usage.add(owner, key)
        if not refused:
            break
    return picked


def limited_pools() -> QuerySet[Any]:
    """The names of the pools with limits, as a subquery."""
    return Pool.objects.exclude(job_limits=[]).order_by().values("name")


def holding_pools() -> QuerySet[Any]:
    """The names of the pools with limits whose jobs may wait because others run or have started."""
    running = Job.objects.filter(pool=OuterRef("name"), state=RUNNING)
    started = JobStart.objects.filter(pool=OuterRef("name"), at__gt=moment(-WINDOW))
    return limited_pools().filter(Q(Exists(running)) | Q(Exists(started)))


def lock(pool: str) -> None:
    """Let the claims of this pool follow each other, until the transaction ends."""
    connection = connections[schema.alias()]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 2))", [f"snakepit limits {pool}"])
    elif connection.vendor == "sqlite":
        Job.objects.filter(pk=uuid.UUID(int=0)).update(priority=0)  # no row, but this transaction is the writer now
    else:
        list(Pool.objects.select_for_update().filter(name=pool).values_list("pk"))


def usage_of(pool: str, rules: Any) -> KeyUsage:
    """Count what runs and what has started. For a claim, call it under the lock."""
    limits = parse(rules)
    rows = Job.objects.filter(pool=pool, state=RUNNING).order_by()
    running = rows.values_list("owner", "limit_key").annotate(count=Count("pk"))
    started: Counts = ()
    if _has_rate(limits):
        groups = _starts(pool).order_by().values_list("owner", "limit_key")
        started = groups.annotate(total=Sum("count"))
    return KeyUsage(limits, running, started)


def note_starts(pool: str, rules: Any, jobs: Sequence[Job]) -> None:
    """Store the starts of a claim, if the pool has a rate. Call it under the lock."""
    if jobs and _has_rate(parse(rules)):
        counts = Counter((job.owner, job.limit_key) for job in jobs)
        rows = [
            JobStart(pool=pool, owner=owner, limit_key=key, count=count, at=Now())
            for (owner, key), count in counts.items()
        ]
        JobStart.objects.bulk_create(rows)


def pause_of_rate(pool: str) -> float:
    """Seconds until the oldest start of the last minute counts no more."""
    first: datetime | None = _starts(pool).aggregate(first=Min("at"))["first"]
    return WINDOW if first is None else min(WINDOW, max(0.1, WINDOW - (utc_now() - first).total_seconds()))


def prune() -> None:
    """Delete the starts that no rate counts, and those that a clock set back has left in the future."""
    JobStart.objects.filter(Q(at__lt=moment(-KEPT)) | Q(at__gt=moment(JUMP))).delete()


def current_key(pool: str, arguments: Mapping[str, Any]) -> str:
    """The key of these arguments for the limits that the pool has now."""
    rules = Pool.objects.filter(name=pool).values_list("job_limits", flat=True).first()
    return "" if rules is None or find_problem(rules) else key_of(rules, arguments)


def reason(job: Job) -> str:
    """Why a queued job waits, if it is for a limit; else empty."""
    if job.shown_state != QUEUED:
        return ""
    rules = Pool.objects.filter(name=job.pool).values_list("job_limits", flat=True).first()
    if rules is None or rules == []:
        return ""
    if problem := find_problem(rules):
        return f"waits: the pool's job_limits: {problem}"
    return usage_of(job.pool, rules).reason(job.owner, job.limit_key)


def _starts(pool: str) -> QuerySet[JobStart]:
    return JobStart.objects.filter(pool=pool, at__gt=moment(-WINDOW))


def _has_rate(limits: Sequence[JobLimit]) -> bool:
    return any(limit.per_minute is not None for limit in limits)

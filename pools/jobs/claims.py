"""Claim queued jobs: which of them may be claimed, in which order, and the one statement that takes a batch.

PostgreSQL   one statement takes the rows, skips those that another claim has locked, and adds their attempts
SQLite       one guarded UPDATE, which excludes other writers, and one INSERT of the attempts, in one transaction
others       a guarded UPDATE by the ids of a query, then a read of the rows that it took

A pool with limits of jobs has claims of its own, which follow each other: see `limits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from django.db import connections, transaction
from django.db.models import F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Now
from django.db.models.lookups import Exact
from django.db.models.sql import UpdateQuery

from snakepit.pools import conf
from snakepit.pools.broker.job_limits import find_problem
from snakepit.pools.jobs import claimed_rows, columns, limits
from snakepit.pools.jobs.fairness import Full, Queue, fair_rows, fairly, rules_of_queue
from snakepit.pools.models import Job, JobAttempt, Pool, schema
from snakepit.pools.models.states import QUEUED, RUNNING

DUE = Q(run_after__isnull=True) | Q(run_after__lte=Now())
UNEXPIRED = Q(expires__isnull=True) | Q(begun=True) | Q(expires__gt=Now())
ATTEMPTED = (
    "(job_id, number, claimed_by, node, started_at, worker, call, outcome)"
    " select id, attempts, claimed_by, %s, started_at, '', '', ''"
)
OF_ATTEMPTS = ("id", "attempts", "claimed_by", "started_at")  # the columns of a job that ATTEMPTED reads
CANDIDATES = 32  # jobs that a claim of a pool with limits compares together, at least
ORDER = ("-priority", "id")  # the index `snakepit_job_claim` has this order
# In place of values in a statement that is built once. No text of a database has a NUL.
POOL, CLAIMANT, NODE, MOST = "\0pool", "\0claimant", "\0node", 2**31 - 1


def eligible(without: QuerySet[Any] | None = None) -> Q:
    """The condition for a claim of a queued job, apart from its pool. Each further condition belongs here.

    `without`: the names of the pools whose jobs are left out; default: those that are paused.
    """
    return DUE & UNEXPIRED & Q(cancel_requested=False) & ~Q(pool__in=paused_queues() if without is None else without)


def paused_queues() -> QuerySet[Any]:
    """The names of the pools whose jobs are paused, as a subquery."""
    return Pool.objects.filter(queue_paused=True).order_by().values("name")


def claimable(**of: Any) -> QuerySet[Job]:
    """The jobs that may be claimed now, in the order of claims."""
    return Job.objects.filter(eligible(), state=QUEUED, **of).order_by(*ORDER)


@dataclass(frozen=True, slots=True)
class Claimed:
    """The jobs of one claim, in the order of claims."""

    jobs: list[Job]
    more: bool = False  # there may be more to claim now
    pause: float | None = None  # seconds until a rate may allow more
    alone: bool = True  # one owner had all queued jobs


NOTHING = Claimed([])


def _unlimited(**of: Any) -> QuerySet[Job]:
    """As `claimable`, without pools that have limits: one may have got them since it was read."""
    without = Pool.objects.filter(Q(queue_paused=True) | ~Q(job_limits=[])).order_by().values("name")
    return Job.objects.filter(eligible(without), state=QUEUED, **of).order_by(*ORDER)


def _of_one_owner(pool: str) -> QuerySet[Job]:
    """As `_unlimited`, and no row if two owners have queued jobs: then they take turns."""
    queued = Job.objects.filter(pool=pool, state=QUEUED)
    first, last = (Subquery(queued.order_by(order).values("owner")[:1]) for order in ("owner", "-owner"))
    return _unlimited(pool=pool).filter(Exact(first, last))


def claim(job_id: Any, claimant: str, node: str) -> Job | None:
    """Claim one job, if it may be claimed. Of concurrent claims exactly one succeeds."""
    wanted = claimable(pk=job_id)
    if taken := _take(_unlimited(pk=job_id)[:1], claimant, node):
        return taken[0]
    rules = Subquery(Pool.objects.filter(name=OuterRef("pool")).values("job_limits")[:1])
    found = wanted.annotate(rules=rules).values_list("pool", "rules").first()
    if found is None or found[1] in (None, []):
        return None
    pool, rules = found
    return next(iter(_claim_limited(_Limited(Queue(pool), rules, job_id), 1, claimant, node).jobs), None)


def claim_batch(pool: str, most: int, claimant: str, node: str) -> list[Job]:
    """The jobs of `take_batch`."""
    return take_batch(pool, most, claimant, node).jobs


def take_batch(pool: str, most: int, claimant: str, node: str, *, alone: bool = True) -> Claimed:
    """Claim up to `most` jobs of a pool: the urgent ones first, owners in turn. No two claims get the same job.

    `alone`: first try the one statement of a pool without limits whose queued jobs have one owner. The statement checks
    both, so a wrong guess costs a statement and no more.
    """
    if most <= 0:
        return NOTHING
    if alone and (taken := _take_alone(pool, most, claimant, node)):
        return Claimed(_ordered(taken), more=len(taken) == most)
    if (found := rules_of_queue(pool)) is None:
        return NOTHING
    (rules,) = found
    if rules not in (None, []):
        return _claim_limited(_Limited(Queue(pool), rules), most, claimant, node)
    taken = _take(fairly(_unlimited, pool, most), claimant, node)
    return Claimed(_ordered(taken), more=len(taken) == most, alone=False)


@dataclass(frozen=True, slots=True)
class _Limited:
    """A claim of a pool with limits."""

    queue: Queue
    rules: Any
    only: Any = None  # the id of the one job to claim

    def page(self, size: int, full: Full, taken: Sequence[Any]) -> Any:
        """The next candidates."""
        if self.only is not None:
            found = claimable(pk=self.only).exclude(pk__in=taken).values_list("pk", "owner", "limit_key")
            return [row for row in found if full.allows(row[1], row[2])]
        rest = ~Q(pk__in=taken) if taken else Q()
        return fair_rows(lambda **of: claimable(**of).filter(rest), self.queue, size, full)


def _claim_limited(wanted: _Limited, most: int, claimant: str, node: str) -> Claimed:
    if find_problem(wanted.rules):
        return NOTHING  # no broker takes this definition; the job's page has the reason
    pool, rules = wanted.queue.pool, wanted.rules
    with transaction.atomic(using=schema.alias()):
        limits.lock(pool)
        usage = limits.usage_of(pool, rules)
        wanted.queue.running = usage.running_of_owners
        ids = limits.pick(partial(wanted.page, max(most, CANDIDATES)), usage, most)
        jobs = _take(claimable(pk__in=ids), claimant, node) if ids else []
        limits.note_starts(pool, rules, jobs)
        pause = limits.pause_of_rate(pool) if usage.rated else None
    for job in jobs:
        job.limited = True
    return Claimed(_ordered(jobs), more=len(ids) == most or len(ids) >= limits.PAGES, pause=pause, alone=False)


def _ordered(jobs: Sequence[Job]) -> list[Job]:
    return sorted(jobs, key=lambda job: (-job.priority, job.pk))


def _take(wanted: QuerySet[Job], claimant: str, node: str) -> list[Job]:
    using = schema.alias()
    vendor = connections[using].vendor
    if vendor in ("postgresql", "sqlite"):
        names = claimed_rows.ALL
        return _run(using, *_statement(wanted, claimant, node if vendor == "postgresql" else None, names), node, names)
    with transaction.atomic(using=using):
        jobs = _take_in_steps(wanted, claimant)
        if jobs:
            key, connection = Job._meta.pk, connections[using]
            _add_attempts(connection, [key.get_db_prep_value(job.pk, connection) for job in jobs], node)
    return jobs


def _take_alone(pool: str, most: int, claimant: str, node: str) -> list[Job]:
    """The claim of nearly all jobs. To build its statement takes longer than to run it, so it is built once."""
    using = schema.alias()
    vendor = connections[using].vendor
    if vendor not in ("postgresql", "sqlite"):
        return _take(_of_one_owner(pool)[:most], claimant, node)
    names = claimed_rows.wanted()
    statement, values = _statement_alone(using, vendor, conf.current().jobs_lease, names)
    given = {POOL: pool, CLAIMANT: claimant[:200], NODE: node}
    filled = [given.get(value, value) if isinstance(value, str) else value for value in values]
    return _run(using, statement.replace(f"LIMIT {MOST}", f"LIMIT {most}"), filled, node, names)


@lru_cache(maxsize=8)
def _statement_alone(using: str, vendor: str, lease: float, names: tuple[str, ...]) -> tuple[str, list[Any]]:
    """`_statement` with names in place of values; `lease` is among its values."""
    return _statement(_of_one_owner(POOL)[:MOST], CLAIMANT, NODE if vendor == "postgresql" else None, names)


def _run(using: str, statement: str, values: list[Any], node: str, names: tuple[str, ...]) -> list[Job]:
    connection = connections[using]
    if connection.vendor == "postgresql":
        return claimed_rows.jobs_of(_rows(connection, statement, values), names)
    with transaction.atomic(using=using):
        rows = _rows(connection, statement, values)
        if rows:
            _add_attempts(connection, [row[names.index("id")] for row in rows], node)
    return claimed_rows.jobs_of(rows, names)


def _rows(connection: Any, statement: str, values: list[Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def _add_attempts(connection: Any, ids: Sequence[Any], node: str) -> None:
    """One INSERT ... SELECT: the values of `bulk_create` cost most of a claim. `ids`: as the database has them."""
    source = f"{ATTEMPTED} from {Job._meta.db_table} where id in ({', '.join(['%s'] * len(ids))})"
    with connection.cursor() as cursor:
        cursor.execute(f"insert into {JobAttempt._meta.db_table} {source}", [node, *ids])


def _statement(
    wanted: QuerySet[Job], claimant: str, node: str | None, columns_of: Sequence[str]
) -> tuple[str, list[Any]]:
    """UPDATE ... RETURNING with its values; with a `node`, the statement also adds the attempts."""
    using = schema.alias()
    query: Any = Job.objects.filter(state=QUEUED).query.chain(UpdateQuery)  # the guard: rows may have changed meanwhile
    query.add_update_values({"state": RUNNING, "attempts": F("attempts") + 1, **columns.claimed(claimant)})
    update, values = query.get_compiler(using).as_sql()
    select, conditions = wanted.values("pk").query.get_compiler(using).as_sql()
    own = {field.attname: f'"{field.column}"' for field in Job._meta.concrete_fields}
    names = ", ".join(own[name] for name in columns_of)
    table = f'"{Job._meta.db_table}"'
    if node is None:
        return f'{update} and {table}."id" in ({select}) returning {names}', [*values, *conditions]
    taken = ", ".join(own[name] for name in dict.fromkeys((*columns_of, *OF_ATTEMPTS)))
    # An array, because PostgreSQL may run a subquery of IN several times, and each time it would lock other rows.
    statement = (
        f'with taken as ({update} and {table}."id" = any(array({select} for update skip locked)) returning {taken}), '
        f"tried as (insert into {JobAttempt._meta.db_table} {ATTEMPTED} from taken) select {names} from taken"
    )
    return statement, [*values, *conditions, node]


def _take_in_steps(wanted: QuerySet[Job], claimant: str) -> list[Job]:
    """As `_statement`, for a database without RETURNING. `claimant` must differ from claim to claim."""
    ids = list(wanted.values_list("pk", flat=True))
    mine = Job.objects.filter(eligible(), pk__in=ids)
    mine.move(RUNNING, attempts=F("attempts") + 1, **columns.claimed(claimant))
    return list(Job.objects.filter(pk__in=ids, state=RUNNING, claimed_by=claimant[:200]))

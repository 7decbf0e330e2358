"""The order of claims among owners: jobs of one owner do not delay those of another.

Priority decides first. Among jobs of one priority, owners take turns, and the running jobs of an owner count as turns
that it has had. A tie is decided at random, so that a claim of a single job prefers no owner.

>>> waiting = {"ada": [(1, 0), (2, 0), (3, 0)], "bob": [(4, 0)]}
>>> fair_order(waiting, running={}, ties={"ada": 0.1, "bob": 0.2})
[1, 4, 2, 3]
>>> fair_order(waiting, running={"ada": 2}, ties={"ada": 0.1, "bob": 0.2})
[4, 1, 2, 3]
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.db import connections
from django.db.models import Case, Count, IntegerField, QuerySet, Subquery, Value, When

from snakepit.pools.jobs.distinct import values_of
from snakepit.pools.models import Job, Pool, schema
from snakepit.pools.models.states import QUEUED, RUNNING

OWNERS = 16  # whose jobs one claim compares; of more, some are chosen at random
WINDOW = 1000  # jobs, the first in the order of claims, that a claim looks at where owners are left out
KNOWN = 1000  # owners that one claim chooses from
SPARE = 32  # jobs above those requested, for rows that another claim takes meanwhile
NAME = "\0name"  # in place of a value in a statement that is built for several
Claimable = Callable[..., QuerySet[Job]]
Row = tuple[Any, str, str]  # (id, owner, key of the argument)
_Found = tuple[str, Any, int, str]  # (owner, id, priority, key of the argument)
Waiting = Mapping[str, Sequence[tuple[Any, int]]]  # (id, priority) of each owner's next jobs, in their order


@dataclass(frozen=True, slots=True)
class Full:
    """The keys of limits that may start no job now."""

    pool: bool = False
    owners: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return self.pool or bool(self.owners or self.keys)

    def allows(self, owner: str, key: str) -> bool:
        """Whether a job of this owner and key of an argument may start."""
        return not self.pool and owner not in self.owners and key not in self.keys


NOTHING_FULL = Full()


def fair_order(waiting: Waiting, running: Mapping[str, int], ties: Mapping[str, float]) -> list[Any]:
    """The ids in the order of claims."""
    ranked: list[tuple[int, int, float, Any]] = []
    for owner, jobs in waiting.items():
        for turn, (job_id, priority) in enumerate(jobs, running.get(owner, 0)):
            ranked.append((-priority, turn, ties[owner], job_id))
    return [job_id for *_, job_id in sorted(ranked)]


def rules_of_queue(pool: str) -> Any | None:
    """The limits of jobs of a pool with queued jobs, in a tuple; None: nothing is queued."""
    rules = Subquery(Pool.objects.filter(name=pool).values("job_limits")[:1])
    return Job.objects.filter(pool=pool, state=QUEUED).order_by().annotate(rules=rules).values_list("rules").first()


class Queue:
    """What one claim reads about a pool, each once."""

    def __init__(self, pool: str) -> None:
        self.pool = pool

    @cached_property
    def owners(self) -> list[str]:
        """The owners with queued jobs."""
        return values_of("owner", f"pool = %s and state = '{QUEUED}'", [self.pool], KNOWN)

    @cached_property
    def keys(self) -> list[str]:
        """The keys of arguments of queued jobs, without the empty one."""
        return values_of("limit_key", f"pool = %s and state = '{QUEUED}' and limit_key <> ''", [self.pool], KNOWN)

    @cached_property
    def running(self) -> dict[str, int]:
        """The running jobs of each owner."""
        rows = Job.objects.filter(pool=self.pool, state=RUNNING).order_by()
        return dict(rows.values_list("owner").annotate(count=Count("pk")))


def fairly(claimable: Claimable, pool: str, most: int) -> QuerySet[Job]:
    """The jobs of a pool that a claim takes, in order. With one owner, they are those of `claimable`."""
    queue = Queue(pool)
    if len(queue.owners) < 2:
        return claimable(pool=pool)[:most]
    order = [job_id for job_id, _, _ in fair_rows(claimable, queue, most, NOTHING_FULL)]
    ranks = [When(pk=job_id, then=Value(rank)) for rank, job_id in enumerate(order)]
    if not ranks:
        return claimable(pool=pool)[:most]
    return claimable(pk__in=order).order_by(Case(*ranks, output_field=IntegerField()))[:most]


def fair_rows(claimable: Claimable, queue: Queue, most: int, full: Full) -> list[Row]:
    """Jobs in the order of claims, a few more than requested, without those that are `full`."""
    pool, others = queue.pool, [owner for owner in queue.owners if owner not in full.owners]
    running = queue.running if len(others) > 1 else {}
    free = [key for key in queue.keys if key not in full.keys] if full.keys else []
    few: list[str] | None = None  # the keys that may start, if there are few: others need not be sent
    if full.keys and len(free) <= OWNERS and len(queue.keys) < KNOWN:
        few = ["", *free]
    found: list[_Found] = []
    if len(others) > OWNERS:
        # The urgent jobs of owners that are not compared. No index has their order without what is full, so only the
        # first rows are looked at.
        found = _first(claimable, pool, WINDOW if full else most + SPARE, few)
        found = [row for row in found if full.allows(row[0], row[3])][: most + SPARE]
        random.shuffle(others)
        others = sorted(others, key=lambda owner: running.get(owner, 0))[:OWNERS]
    chosen = set(others)
    found = [row for row in found if row[0] not in chosen]
    found += _heads(claimable, pool, "owner", others, most, few)
    # The first jobs of an owner may all have full keys.
    found += _heads(claimable, pool, "limit_key", random.sample(free, min(OWNERS, len(free))), most)
    rows = {job_id: (job_id, owner, key) for owner, job_id, _, key in found if full.allows(owner, key)}
    waiting: dict[str, dict[Any, int]] = {}
    for owner, job_id, priority, _ in sorted(found, key=lambda row: (-row[2], row[1])):
        if job_id in rows:
            waiting.setdefault(owner, {})[job_id] = priority
    turns = {owner: list(jobs.items()) for owner, jobs in waiting.items()}
    order = fair_order(turns, running, {owner: random.random() for owner in waiting})
    return [rows[job_id] for job_id in order[: most + SPARE]]


def _first(claimable: Claimable, pool: str, most: int, keys: Sequence[str] | None) -> list[_Found]:
    """Those of the first jobs that have one of the keys."""
    wanted = claimable(pool=pool).values_list("owner", "pk", "priority", "limit_key")[:most]
    part, values = wanted.query.get_compiler(using=schema.alias()).as_sql()
    return _run(f"select * from ({part}) part", list(values), keys)


def _run(statement: str, values: list[Any], keys: Sequence[str] | None) -> list[_Found]:
    """The rows of a statement that ends with `part`, with one of the keys."""
    if keys is not None:
        statement = f"{statement} where part.limit_key in ({', '.join(['%s'] * len(keys))})"
        values = [*values, *keys]
    to_python = Job._meta.pk.to_python
    with connections[schema.alias()].cursor() as cursor:
        cursor.execute(statement, values)
        return [(owner, to_python(job_id), priority, limit_key) for owner, job_id, priority, limit_key in cursor]


def _heads(
    claimable: Claimable,
    pool: str,
    field: str,
    names: Sequence[str],
    most: int,
    keys: Sequence[str] | None = None,
) -> list[_Found]:
    """The first jobs with each of these values, by one statement; of them, those that have one of the keys."""
    if not names:
        return []
    connection = connections[schema.alias()]
    wanted = claimable(pool=pool, **{field: NAME}).values_list("owner", "pk", "priority", "limit_key")[:most]
    part, values = wanted.query.get_compiler(connection=connection).as_sql()
    if connection.vendor == "postgresql":  # it would plan each part of a UNION, for longer than it runs them
        at = values.index(NAME)
        before, after = part.split("%s")[: at + 1], part.split("%s")[at + 1 :]
        part = f"{'%s'.join(before)}names.name{'%s'.join(after)}"
        listed = ", ".join(["(%s)"] * len(names))
        statement = f"select part.* from (values {listed}) names(name) cross join lateral ({part}) part"
        given = [*names, *values[:at], *values[at + 1 :]]
    else:
        parts = " union all ".join(f"select * from ({part}) part{number}" for number in range(len(names)))
        statement = f"select * from ({parts}) part"
        given = [name if value == NAME else value for name in names for value in values]
    return _run(statement, given, keys)

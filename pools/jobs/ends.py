"""Write the ends of attempts and of queued jobs. All terminal writes pass through `write`, and so do requeues.

One statement writes many rows. Each row has its own guard: its state, and the number of its newest attempt, which is
the fencing token. A row that a newer attempt has, or that has ended, stays as it is, and its id is not returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from types import NoneType
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.db.models import CharField, F, Field, Q
from django.db.models.functions import Now
from django.db.models.sql import UpdateQuery

from snakepit.pools.jobs import after_end, columns
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.models import Job, JobAttempt, schema
from snakepit.pools.models.job import JobQuerySet
from snakepit.pools.models.states import QUEUED, RUNNING, SUCCEEDED, sources

MOST = 90  # rows of one statement: older SQLite libraries take 999 values
RESULTS = ("result", "result_raw", "error")  # columns of a job that differ from row to row
KINDS = 200  # of which the statement is kept
FACTS = ("outcome", "worker", "call", "error", "evidence")  # columns of an attempt


@dataclass(frozen=True, slots=True)
class End:
    """The end of one attempt, or of a queued job, and what the rows get."""

    job: Job  # as it was claimed, or read: its id and its newest attempt guard the write
    transition: Transition
    error: Mapping[str, Any] | None = None
    result: Any = None
    result_raw: bytes | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # columns of the attempt
    source: str = RUNNING
    expired: bool = False  # only if the lease has expired

    @property
    def kind(self) -> tuple[Any, ...]:
        """What ends of one statement share."""
        one = self.transition
        last = one.pause if one.state == QUEUED else self.job.retention
        return (self.source, one.state, one.counts, one.death, one.snoozed, one.began, last, self.expired)

    @property
    def is_last(self) -> bool:
        """Whether the job itself ends."""
        return self.transition.state != QUEUED


def write(ends: Iterable[End], *, steps: bool = True) -> frozenset[UUID]:
    """Write the ends whose rows still allow it, and return the ids of these jobs.

    Without `steps`, the caller does what follows the end of a job.
    """
    written: set[UUID] = set()
    kinds: dict[tuple[Any, ...], list[End]] = {}
    for end in ends:
        kinds.setdefault(end.kind, []).append(end)
    for kind in sorted(kinds):
        rest = sorted(kinds[kind], key=lambda end: end.job.pk.int)  # all writers lock rows in this order
        while rest:
            written |= _write_with_steps(rest[:MOST]) if steps else _write_alike(rest[:MOST])
            rest = rest[MOST:]
    return frozenset(written)


def find_written(ends: Iterable[End]) -> frozenset[UUID]:
    """The jobs whose rows have these ends: the commit succeeded, and the connection was lost before its answer."""
    wanted = {end.job.pk: (end.job.attempts, end.transition.state) for end in ends}
    found = Job.objects.filter(pk__in=wanted).values_list("pk", "attempts", "state") if wanted else ()
    return frozenset(pk for pk, attempts, state in found if (attempts, state) == wanted[pk])


def _write_with_steps(ends: Sequence[End]) -> set[UUID]:
    """Write ends of one kind and, in the same transaction, what follows the end of a job."""
    if not ends[0].is_last:
        return _write_alike(ends)
    with transaction.atomic(using=schema.alias()):
        written = _write_alike(ends)
        over = [after_end.Ended(end.job, end.transition.state, end.error) for end in ends if end.job.pk in written]
        announcements = after_end.apply(over)
    after_end.announce(announcements)
    return written


def _write_alike(ends: Sequence[End]) -> set[UUID]:
    connection = connections[schema.alias()]
    if connection.vendor == "postgresql":
        return set(_in_one_statement(connection, ends))
    with transaction.atomic(using=schema.alias()):
        if connection.vendor == "sqlite":
            written = _jobs_at_once(connection, ends)
            _attempts_at_once(connection, [end for end in ends if end.job.pk in written])
            return written
        return {end.job.pk for end in ends if _one(end)}


def _guard(end: End) -> JobQuerySet:
    silent = Q(lease_until__lt=Now()) if end.expired else Q()
    return Job.objects.filter(silent, state=end.source)


def _changes(end: End) -> dict[str, Any]:
    """The columns of a job that are the same for ends of one kind."""
    one = end.transition
    if end.source not in sources(one.state):
        raise ValueError(f"a job that is {end.source} cannot become {one.state}")
    changed = columns.waiting(one.pause) if one.state == QUEUED else columns.ended(end.job.retention)
    if end.source == RUNNING:
        counted = {"failures": one.counts, "deaths": one.death, "snoozes": one.snoozed}
        changed |= {name: F(name) + int(more) for name, more in counted.items()}
        changed |= {"lease_until": None, "claimed_by": "", **({"begun": True} if one.began else {})}
    if one.state == SUCCEEDED:
        changed["progress"] = 1.0
    return {"state": one.state, **changed}


def _in_one_statement(connection: Any, ends: Sequence[End]) -> Iterator[UUID]:
    rows, values = _rows(connection, ends, [*_job_fields(), *_attempt_fields()])
    update, more = _update_of_jobs(connection, ends[0])
    statement = f"with v as (values {rows}), ended as ({update} returning {Job._meta.db_table}.id)"
    if ends[0].source == RUNNING:
        tries = _update_of_attempts(connection, len(_job_fields()))
        statement += f", tried as ({tries} and job_id in (select id from ended))"
    with connection.cursor() as cursor:
        cursor.execute(f"{statement} select id from ended", [*values, *more])
        yield from (row[0] for row in cursor.fetchall())


def _jobs_at_once(connection: Any, ends: Sequence[End]) -> set[UUID]:
    rows, values = _rows(connection, ends, _job_fields())
    update, more = _update_of_jobs(connection, ends[0])
    with connection.cursor() as cursor:
        cursor.execute(f"with v as (values {rows}) {update} returning id", [*values, *more])
        return {Job._meta.pk.to_python(row[0]) for row in cursor.fetchall()}


def _attempts_at_once(connection: Any, ends: Sequence[End]) -> None:
    if ends and ends[0].source == RUNNING:
        rows, values = _rows(connection, ends, _attempt_fields())
        with connection.cursor() as cursor:
            cursor.execute(f"with v as (values {rows}) {_update_of_attempts(connection, 0)}", values)


def _job_fields() -> list[Field[Any, Any]]:
    return [Job._meta.get_field(name) for name in RESULTS]  # type: ignore[misc]


def _attempt_fields() -> list[Field[Any, Any]]:
    return [JobAttempt._meta.get_field(name) for name in FACTS]  # type: ignore[misc]


def _rows(connection: Any, ends: Sequence[End], fields: Sequence[Field[Any, Any]]) -> tuple[str, list[Any]]:
    """The VALUES of a statement: id and number of the attempt, then the fields."""
    key = Job._meta.pk
    columns_of = [[key.get_db_prep_save(end.job.pk, connection) for end in ends], [end.job.attempts for end in ends]]
    for one in fields:
        if one.model is Job:
            found = [getattr(end, one.name) for end in ends]
        else:
            found = [end.facts.get(one.name, None if one.null else "") for end in ends]
        columns_of.append(_prepared(connection, one, found))
    row = f"({', '.join(['%s'] * len(columns_of))})"
    return ", ".join([row] * len(ends)), list(chain.from_iterable(zip(*columns_of, strict=True)))


def _prepared(connection: Any, one: Field[Any, Any], found: list[Any]) -> list[Any]:
    """The values of a column for the database. Text and null are what it takes already."""
    as_it_is = (str, NoneType) if isinstance(one, CharField) else NoneType
    return [value if isinstance(value, as_it_is) else one.get_db_prep_save(value, connection) for value in found]


def _column(connection: Any, number: int, model_field: Field[Any, Any]) -> str:
    """A column of the VALUES. PostgreSQL takes a value without a type for text."""
    name = f"v.column{number}"
    return f"cast({name} as {model_field.db_type(connection)})" if connection.vendor == "postgresql" else name


_updates: dict[tuple[Any, ...], tuple[str, list[Any]]] = {}  # to build one takes longer than to run it


def _update_of_jobs(connection: Any, end: End) -> tuple[str, list[Any]]:
    """The UPDATE for ends of one kind. Those of a pause are not kept, because each pause is another one."""
    kind = (connection.alias, connection.vendor, end.kind)
    if (found := _updates.get(kind)) is None:
        found = _built_update(connection, end)
        if end.is_last:
            if len(_updates) >= KINDS:
                _updates.clear()
            _updates[kind] = found
    return found


def _built_update(connection: Any, end: End) -> tuple[str, list[Any]]:
    query: Any = _guard(end).query.chain(UpdateQuery)
    query.add_update_values(_changes(end))
    update, values = query.get_compiler(connection=connection).as_sql()
    head, _, condition = update.partition(" WHERE ")
    own = ", ".join(f"{one.column} = {_column(connection, 3 + n, one)}" for n, one in enumerate(_job_fields()))
    table = Job._meta.db_table
    mine = f"{table}.id = {_column(connection, 1, Job._meta.pk)} and {table}.attempts = v.column2"
    return f"{head}, {own} from v where {condition} and {mine}", list(values)


def _update_of_attempts(connection: Any, skipped: int) -> str:
    return _built_update_of_attempts(connection.alias, connection.vendor, skipped)


@lru_cache(maxsize=8)
def _built_update_of_attempts(alias: str, vendor: str, skipped: int) -> str:
    connection = connections[alias]
    now = Job.objects.all().query.get_compiler(connection=connection).compile(Now())[0]
    fields = enumerate(_attempt_fields(), 3 + skipped)
    own = ", ".join(f"{one.column} = {_column(connection, n, one)}" for n, one in fields)
    mine = f"job_id = {_column(connection, 1, Job._meta.pk)} and number = v.column2"
    return f"update {JobAttempt._meta.db_table} set finished_at = {now}, {own} from v where {mine}"


def _one(end: End) -> bool:
    """As the statements above, for another database."""
    job = end.job
    own = {name: getattr(end, name) for name in RESULTS}
    changed = _changes(end)
    moved = _guard(end).filter(pk=job.pk, attempts=job.attempts).move(changed.pop("state"), **changed, **own)
    if moved and end.source == RUNNING:
        JobAttempt.objects.filter(job_id=job.pk, number=job.attempts).update(finished_at=Now(), **end.facts)
    return bool(moved)

"""submit_many(): store the rows of many jobs by few statements, all of them or none, and send few messages."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Any

from asgiref.sync import sync_to_async
from django.db import IntegrityError, connections, transaction
from django.db.models import CharField, Field, IntegerField
from django.db.models.functions import Now

from snakepit.pools import conf
from snakepit.pools.broker.caller import current
from snakepit.pools.broker.errors import BadArguments, BadRequest, BrokerError, CommandUnknown
from snakepit.pools.jobs import in_process, messages, predecessors, unique
from snakepit.pools.jobs.arguments import store
from snakepit.pools.jobs.options import JobOptions, check_key, show_options
from snakepit.pools.jobs.predecessors import Predecessors
from snakepit.pools.jobs.room import check_room
from snakepit.pools.jobs.signals import emit, job_submitted
from snakepit.pools.jobs.submission import CONTENDED, check_same
from snakepit.pools.jobs.target import JobTarget
from snakepit.pools.models import Job, schema
from snakepit.pools.models.instances import maker
from snakepit.pools.models.job import uuid7s
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.states import BLOCKED, QUEUED

BATCH = 500  # rows that are checked, and then inserted by one statement
OWN = ("id", "arguments", "size")  # columns that differ between the jobs of a call
OFTEN_SHARED = ("idempotency_key", "unique_key", "limit_key")  # those that may differ
MOST_EDGES = 100_000  # dependencies of the jobs of one call
END = object()


@show_options
def submit_many(
    pool: str,
    command: str,
    rows: Iterable[Mapping[str, Any]],
    *,
    idempotency_keys: Iterable[str | None] | None = None,
    **given: Any,
) -> list[Job]:
    """Store one job for each row of arguments, all or none, and return the jobs in the order of the rows.

    The options are those of `submit`, and the jobs share them. `idempotency_keys` has one key or None for each row. A
    key that this owner has used in this pool before returns the existing job, with `existed` set.

    A bad row refuses the whole call. The error names it as `row N`, from 0, and has N in `details["row"]`. Rows are
    read in batches of 500, in one transaction from the second batch on. An iterator may be longer than memory allows
    for its rows, but the jobs are returned as a list.
    """
    options, unknown = JobOptions.among(given)
    if unknown:
        raise TypeError(f"submit_many() has no option named {', '.join(map(repr, unknown))}")
    shared = options.columns()
    target = JobTarget(pool, command)
    _, needs = predecessors.read(options.depends_on, options.on_failure)
    only = unique.of(options.unique)
    submission = _Submission({**shared, "pool": pool, "command": command, "hooked": target.hooked}, only, needs)
    checked = _checked(target, rows, idempotency_keys, unique.names_of(only))
    # Before the transaction: most calls have one batch, and a bad row among them costs the database nothing.
    batch = list(islice(checked, BATCH))
    with transaction.atomic(using=schema.alias()):
        submission.begin(keyed=idempotency_keys is not None)
        while batch:
            submission.add(batch)
            batch = list(islice(checked, BATCH))
        submission.check_room()
    submission.announce_on_commit()
    return submission.jobs


async def asubmit_many(pool: str, command: str, rows: Iterable[Mapping[str, Any]], **given: Any) -> list[Job]:
    """As `submit_many`, for an event loop, with the same options."""
    return await sync_to_async(submit_many)(pool, command, rows, **given)


def on_line(error: BrokerError) -> BrokerError:
    """The error of a row, with the number of its line in a file instead: lines count from 1."""
    row = error.details.get("row")
    if not isinstance(row, int):
        return error
    details = {name: value for name, value in error.details.items() if name != "row"}
    message = error.message.replace(f"row {row}: ", f"line {row + 1}: ", 1)
    return type(error)(
        message, outcome=error.outcome, details={"line": row + 1, **details}, retry_after=error.retry_after
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """A checked row."""

    index: int
    arguments: dict[str, Any]
    size: int
    key: str
    limit_key: str


def _checked(
    target: JobTarget, rows: Iterable[Any], keys: Iterable[str | None] | None, unique_by: frozenset[str]
) -> Iterator[_Row]:
    for name, value in (("rows", rows), ("idempotency_keys", keys)):
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable | None):
            raise BadRequest(f"{name}: must be an iterable with one value for each job, not {type(value).__name__}")
    if rows is None:
        raise BadRequest("rows: must be an iterable of dicts of arguments")
    pairs = ((row, None) for row in rows) if keys is None else zip_longest(rows, keys, fillvalue=END)
    for index, (row, key) in enumerate(pairs):
        if row is END or key is END:
            raise BadRequest(f"idempotency_keys: has {'more' if row is END else 'fewer'} values than rows has dicts")
        try:
            if row is None:
                raise BadArguments("arguments: must be a dict of keyword arguments, not NoneType")
            arguments = store(row)
            size = len(json.dumps(arguments))
            target.check(arguments, unique_by=unique_by, size=size)
            name = check_key(key)  # type: ignore[arg-type]
            yield _Row(index, arguments, size, name, target.limit_key(arguments))
        except CommandUnknown:
            raise
        except BrokerError as error:
            raise _of_row(index, error) from None


def _of_row(index: int, error: BrokerError) -> BrokerError:
    details = {"row": index, **error.details}
    message = f"row {index}: {error.message}"
    return type(error)(message, outcome=error.outcome, details=details, retry_after=error.retry_after)


class _Submission:
    """The jobs of one call."""

    def __init__(self, shared: Mapping[str, Any], only: unique.Unique | None, needs: Predecessors) -> None:
        self.jobs: list[Job] = []  # in the order of the rows
        self._shared, self._caller, self._needs = {**shared, "state": BLOCKED if needs else QUEUED}, current(), needs
        self._new: list[Job] = []
        self._size = 0
        self._by_key: dict[str, Job] = {}
        self._unique = only
        self._same: dict[str, Job] = {}
        self._ids = uuid7s(needs.ids)
        like = Job(key=self._caller.key if self._caller else "", **self._shared)
        columns = {field.attname: getattr(like, field.attname) for field in Job._meta.concrete_fields}
        self._make = maker(Job, columns, stored_in=None)
        # Decided once: at the commit it may be due, and then `reconcile` sends all of them.
        self._later = shared["run_after"] is not None and shared["run_after"] > utc_now()

    def begin(self, keyed: bool) -> None:
        """Become SQLite's writer before the keys are read: a transaction that reads first may fail when it writes."""
        if self._needs:
            predecessors.keep(self._needs.ids)
        if keyed and connections[schema.alias()].vendor == "sqlite":
            Job.objects.filter(pk=next(self._ids)).update(priority=0)  # no row
        if self._unique is not None:
            unique.lock(self._shared["pool"], self._shared["command"])

    def add(self, batch: Sequence[_Row]) -> None:
        """Insert the rows, or find the jobs with their idempotency keys."""
        keys = {row.key for row in batch if row.key}
        for _ in range(3):  # another process may add a job with a key between read and insert
            known = self._by_key | self._existing(keys)
            same = self._same | self._existing_same(batch)
            found = [self._find_or_make(row, known, same) for row in batch]
            new = [job for job in found if job._state.adding]
            new = list({job.pk: job for job in new}.values())  # a key may occur twice
            try:
                # A savepoint: on PostgreSQL a conflict would abort the transaction.
                with transaction.atomic(using=schema.alias()) if keys else nullcontext():
                    _insert(new, sent=not self._later and not self._needs)
                    self._add_edges(new)
            except IntegrityError:
                if not keys:
                    raise
                continue
            self._keep(found, new)
            # A row that counts as the same as another one made no job with its key.
            self._by_key = {key: known[key] for key in self._by_key.keys() | keys if key in known}
            self._same = same
            return
        raise BadRequest(CONTENDED)

    def _add_edges(self, new: Sequence[Job]) -> None:
        edges = (len(self._new) + len(new)) * len(self._needs.needs)
        if edges > MOST_EDGES:
            raise BadRequest(f"depends_on: jobs of one call wait {edges} times; at most {MOST_EDGES} are possible")
        predecessors.add(new, self._needs)

    def _existing(self, keys: set[str]) -> dict[str, Job]:
        if not (unknown := keys - self._by_key.keys()):
            return {}
        mine = {name: self._shared[name] for name in ("owner", "pool")}
        found = {job.idempotency_key: job for job in Job.objects.filter(**mine, idempotency_key__in=unknown)}
        for job in found.values():
            job.existed = True
        return found

    def _unique_key(self, row: _Row) -> str:
        shared = self._shared
        only = self._unique
        return only.key(shared["pool"], shared["command"], shared["owner"], row.arguments) if only else ""

    def _existing_same(self, batch: Sequence[_Row]) -> dict[str, Job]:
        """The unique jobs that exist already, by their key."""
        if self._unique is None:
            return {}
        return self._unique.existing({self._unique_key(row) for row in batch} - self._same.keys())

    def _find_or_make(self, row: _Row, known: dict[str, Job], same: dict[str, Job]) -> Job:
        if row.key in known:
            try:
                check_same(known[row.key], self._shared["command"], row.arguments)
            except BrokerError as error:
                raise _of_row(row.index, error) from None
            return known[row.key]
        unique_key = self._unique_key(row)
        if unique_key in same:
            return same[unique_key]
        own = {"id": next(self._ids), "arguments": row.arguments, "size": row.size, "idempotency_key": row.key}
        job = self._make({**own, "unique_key": unique_key, "limit_key": row.limit_key})
        if row.key:
            known[row.key] = job
        if unique_key:
            same[unique_key] = job
        return job

    def _keep(self, found: Sequence[Job], new: Sequence[Job]) -> None:
        self.jobs += found
        self._new += new
        self._size += sum(job.size for job in new)
        settings = conf.current()
        if len(self._new) > settings.jobs_queued_limit or self._size > settings.jobs_queued_bytes:
            self.check_room()  # it refuses: no further rows are read

    def check_room(self) -> None:
        """Count once, after the inserts, so that concurrent submissions see each other."""
        if self._new:
            check_room(self._shared["pool"], self._size, self._caller, len(self._new))

    def announce_on_commit(self) -> None:
        if not self._new:
            return
        if in_process.runner is not None and in_process.runner.runs_now():
            self._announce()
        else:  # not a partial: see `submission`
            transaction.on_commit(lambda: self._announce(), using=schema.alias(), robust=True)

    def _announce(self) -> None:
        _announce(self._new, self._later or bool(self._needs))
        if self._needs and predecessors.settle([job.pk for job in self._new], self._needs.ids):
            _refresh(self._new)


def _insert(jobs: Sequence[Job], sent: bool) -> None:
    """Insert rows, as sent now or as not sent. Each statement has the values that the jobs share only once."""
    connection = connections[schema.alias()]
    now, using = utc_now(), schema.alias()
    of_database = Now() if sent else None
    for job in jobs:
        job.created_at = job.queued_at = now
        job.sent_at = of_database
    if connection.vendor not in ("postgresql", "sqlite"):
        Job.objects.bulk_create(jobs, batch_size=BATCH)
    else:
        most = _rows_a_statement(connection)
        for start in range(0, len(jobs), most):
            _insert_some(connection, jobs[start : start + most])
    for job in jobs:
        job._state.adding, job._state.db = False, using
        job.sent_at = now if sent else None  # instead of a query; the row has the database's time


def _rows_a_statement(connection: Any) -> int:
    if connection.vendor != "sqlite":
        return BATCH
    connection.ensure_connection()
    values = connection.connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)  # 999 in libraries before 3.32
    return int(min(BATCH, (values - len(Job._meta.concrete_fields)) // len((*OWN, *OFTEN_SHARED))))


def _insert_some(connection: Any, jobs: Sequence[Job]) -> None:
    """Insert ... select own, shared from (values ...): a tenth of the values of `bulk_create`, whose cost they are."""
    differ = {*OWN, *(name for name in OFTEN_SHARED if len({getattr(job, name) for job in jobs}) > 1)}
    own = [field for field in Job._meta.concrete_fields if field.name in differ]
    shared = [field for field in Job._meta.concrete_fields if field.name not in differ]
    compiler = Job.objects.all().query.get_compiler(connection=connection)
    selected, values = [], []
    for field in shared:
        value = getattr(jobs[0], field.attname)
        if isinstance(value, Now):
            text, some = compiler.compile(value)
        else:
            text, some = "%s", [field.get_db_prep_save(value, connection)]
        # PostgreSQL takes a value without a type for text here, which it does not convert to a column's type.
        selected.append(f"cast({text} as {field.db_type(connection)})" if connection.vendor == "postgresql" else text)
        values += some
    columns = [_prepared(connection, field, [getattr(job, field.attname) for job in jobs]) for field in own]
    values += chain.from_iterable(zip(*columns, strict=True))
    names = ", ".join(connection.ops.quote_name(field.column) for field in (*own, *shared))
    rows = ", ".join([f"({', '.join(['%s'] * len(own))})"] * len(jobs))
    statement = (
        f"insert into {Job._meta.db_table} ({names}) select v.*, {', '.join(selected)} from (values {rows}) as v"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def _prepared(connection: Any, field: Field[Any, Any], values: list[Any]) -> list[Any]:
    """The values of a column for the database. Text and numbers are what it takes already."""
    if isinstance(field, CharField | IntegerField):
        return values
    return [field.get_db_prep_save(value, connection) for value in values]


def _announce(jobs: Sequence[Job], later: bool) -> None:
    if job_submitted.receivers:
        for job in jobs:
            emit(job_submitted, job)
    if later:
        return
    sent = set(messages.send_many([job.pk for job in jobs], messages.queue_of(jobs[0].pool)).ids)
    unsent = [job.pk for job in jobs if job.pk not in sent]
    for start in range(0, len(unsent), BATCH):
        # The next reconcile sends a hint, instead of the first one after JOBS_RESEND.
        part = unsent[start : start + BATCH]
        Job.objects.filter(pk__in=part, state=QUEUED, attempts=0, sends=1).update(sent_at=None)
    if _runs_here():
        for job in jobs:
            job.refresh_from_db()


def _refresh(jobs: Sequence[Job]) -> None:
    """Read the states again that a release may have changed."""
    if _runs_here():
        for job in jobs:
            job.refresh_from_db()
        return
    for start in range(0, len(jobs), BATCH):
        part = {job.pk: job for job in jobs[start : start + BATCH]}
        for job_id, state in Job.objects.filter(pk__in=part).values_list("pk", "state"):
            part[job_id].state = state


def _runs_here() -> bool:
    try:
        return messages.runs_here()
    except Exception:  # the project's Celery app cannot be imported: `send_many` logs the reason
        return False

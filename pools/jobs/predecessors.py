"""The jobs that a new job waits for and that were submitted before it, in any state.

read() ─▶ keep(): they stay until the commit ─▶ rows (blocked) and edges ─ on commit ─▶ settle() ─▶ release

Such a job is `blocked` in its row, as a job of a workflow. The end of its last predecessor releases it. An end that is
written at the same time may not see the new row, so the submission looks again after its commit.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import OperationalError, connections, transaction

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.jobs import after_end
from snakepit.pools.jobs.shown_value import shown
from snakepit.pools.models import Job, JobEdge, schema
from snakepit.pools.models.states import ACTIVE
from snakepit.pools.models.workflow import CANCEL, POLICIES

MOST = 1000  # predecessors of one job
BATCH = 500  # rows of one statement

# Set by `workflows`, which imports the submission, which imports this module.
release: Callable[[Iterable[Any]], Iterable[after_end.Announcement]] = tuple


@dataclass(frozen=True, slots=True)
class EarlierJob:
    """A job that is waited for, and the argument that receives its result; empty: none."""

    job: uuid.UUID
    argument: str = ""
    position: int | None = None  # its place in the list that the argument receives


@dataclass(frozen=True, slots=True)
class Predecessors:
    """What the jobs of a submission wait for. False if they wait for nothing."""

    needs: tuple[EarlierJob, ...] = ()
    policy: str = CANCEL

    def __bool__(self) -> bool:
        return bool(self.needs)

    @property
    def ids(self) -> list[uuid.UUID]:
        return list(dict.fromkeys(one.job for one in self.needs))

    @property
    def arguments(self) -> frozenset[str]:
        """The arguments that come later."""
        return frozenset(one.argument for one in self.needs if one.argument)

    def edges(self, jobs: Iterable[Job]) -> Iterator[JobEdge]:
        for job in jobs:
            for one in self.needs:
                given = {"policy": self.policy, "argument": one.argument, "position": one.position}
                yield JobEdge(job=job, needs_id=one.job, **given)


NOTHING = Predecessors()


def read(
    depends_on: Any, on_failure: Any, arguments: Mapping[str, Any] | None = None
) -> tuple[Mapping[str, Any] | None, Predecessors]:
    """Returns (the arguments without those that are jobs, the predecessors). BadRequest names the option."""
    if isinstance(depends_on, str | bytes | Mapping) or not isinstance(depends_on, Iterable):
        raise BadRequest("depends_on: must be a list of jobs, or of their ids")
    policy = check_policy(on_failure)
    needs = [EarlierJob(id_of("depends_on", one)) for one in depends_on]
    if isinstance(arguments, Mapping) and (found := [one for item in arguments.items() for one in results(*item)]):
        needs += found
        names = {one.argument for one in found}
        rest = {name: value for name, value in arguments.items() if name not in names}
        arguments = type(arguments)(rest) if isinstance(arguments, dict) else rest
    needs = list(dict.fromkeys(needs))
    if len(needs) > MOST:
        raise BadRequest(f"depends_on: a job waits for at most {MOST} jobs, not {len(needs)}")
    return arguments, Predecessors(tuple(needs), policy)


def results(name: str, value: Any) -> Iterator[EarlierJob]:
    """The predecessors whose results an argument receives: its value is a job, or a list of jobs."""
    if isinstance(value, Job):
        yield EarlierJob(value.pk, name)
    elif isinstance(value, list | tuple) and any(isinstance(one, Job) for one in value):
        for position, one in enumerate(value):
            if not isinstance(one, Job):
                raise BadRequest(f"{name}: a list of results may have only jobs, not {type(one).__name__}")
            yield EarlierJob(one.pk, name, position)


def id_of(field: str, value: Any) -> uuid.UUID:
    """The id of a job that is given as the job, its id, or the text of its id."""
    if isinstance(value, Job):
        value = value.pk
    try:
        return value if isinstance(value, uuid.UUID) else uuid.UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise BadRequest(f"{field}: {shown(value)} is neither a job nor the id of one") from None


def check_policy(name: Any) -> str:
    if name not in POLICIES:
        raise BadRequest(f"on_failure: {shown(name)} is not one of {', '.join(POLICIES)}")
    return str(name)


def keep(ids: Sequence[uuid.UUID], field: str = "depends_on") -> None:
    """Make sure that these jobs exist, and that none is deleted before the transaction of the caller ends.

    It is the first statement of that transaction. Ends of these jobs do not wait for it.
    """
    connection = connections[schema.alias()]
    if connection.vendor == "sqlite":
        Job.objects.filter(pk=uuid.UUID(int=0)).update(priority=0)  # no row, but this transaction is the writer now
    found: set[uuid.UUID] = set()
    for start in range(0, len(ids), BATCH):
        rows = Job.objects.filter(pk__in=ids[start : start + BATCH]).order_by().values_list("pk", flat=True)
        if connection.vendor == "postgresql":
            statement, values = rows.query.get_compiler(connection=connection).as_sql()
            with connection.cursor() as cursor:  # Django has no name for this lock, the one of a foreign key
                cursor.execute(f"{statement} for key share", values)
                found |= {row[0] for row in cursor.fetchall()}
        else:
            found |= set(rows)
    if missing := next((one for one in ids if one not in found), None):
        raise BadRequest(f"{field}: no job has the id {missing}", details={"job": str(missing)})


def add(jobs: Sequence[Job], to: Predecessors) -> None:
    """Store what new jobs wait for, in the transaction that stores them."""
    JobEdge.objects.bulk_create(list(to.edges(jobs)), batch_size=BATCH)


def settle(job_ids: Sequence[Any], needs: Sequence[uuid.UUID]) -> bool:
    """After the commit, release new jobs whose predecessors have ended; returns whether there may be some."""
    _wait_for_ends(needs)
    ended = (Job.objects.filter(pk__in=needs[start : start + BATCH]).exclude(state__in=ACTIVE)
             for start in range(0, len(needs), BATCH))  # fmt: skip
    if not any(rows.exists() for rows in ended):
        return False
    with transaction.atomic(using=schema.alias()):
        announcements = list(release(job_ids))
    after_end.announce(announcements)
    return True


def _wait_for_ends(needs: Sequence[uuid.UUID]) -> None:
    """Wait for transactions that have a predecessor locked: one that ends it may not have seen the new jobs."""
    connection = connections[schema.alias()]
    if not connection.features.has_select_for_update_skip_locked:
        return  # SQLite has one writer at a time
    for start in range(0, len(needs), BATCH):
        active = Job.objects.filter(pk__in=needs[start : start + BATCH], state__in=ACTIVE).order_by()
        with transaction.atomic(using=schema.alias()):
            free = set(active.select_for_update(skip_locked=True, no_key=True).values_list("pk", flat=True))
        # One lock at a time: a statement that ends many jobs locks them in any order.
        for job_id in set(active.values_list("pk", flat=True)) - free:
            _wait_for(connection, job_id)


def _wait_for(connection: Any, job_id: Any) -> None:
    try:
        with transaction.atomic(using=schema.alias()):
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute("set local lock_timeout = '1s'")
            list(Job.objects.filter(pk=job_id).select_for_update(no_key=True).values_list("pk"))
    except OperationalError:
        return  # a long transaction holds it: the reconciler releases what waits for it

"""Workflows: jobs that wait for other jobs, and receive their results as arguments.

Workflow(...).job(...) or a specification ─▶ store(): rows, edges, one transaction ─▶ roots are sent
the last predecessor ends ─▶ after_end ─▶ release(): queued or cancelled, in the same transaction
reconcile ─▶ release_missed(): the same for what a process outside these functions has ended
"""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from snakepit.pools.broker.caller import current
from snakepit.pools.broker.errors import BadRequest, BrokerError, PayloadTooLarge
from snakepit.pools.jobs import after_end, dependencies, ends, failure_hook, limits, predecessors
from snakepit.pools.jobs.arguments import storable, store
from snakepit.pools.jobs.options import JobOptions
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.jobs.room import check_room
from snakepit.pools.jobs.shown_value import shown
from snakepit.pools.jobs.signals import emit_finished
from snakepit.pools.jobs.submission import announce, on_commit, send_many_on_commit, send_on_commit
from snakepit.pools.jobs.target import JobTarget
from snakepit.pools.models import Job, JobEdge, JobWorkflow, schema
from snakepit.pools.models.job import uuid7s
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.states import ACTIVE, BLOCKED, CANCELLED, FAILED, QUEUED, SCHEDULED, TERMINAL, UNSUCCESSFUL
from snakepit.pools.models.workflow import CANCEL

MOST_JOBS, MOST_EDGES = 1000, 10_000  # of one workflow
MOST_RESULTS = 16 * 2**20  # bytes of JSON that one job receives from its predecessors
BATCH = 500  # jobs that one reconcile releases, and rows of one statement
EARLIER = -1  # the place of a job that was submitted before the workflow
QUEUED_NOW: dict[str, Any] = {"queued_at": Now(), "sent_at": Now(), "sends": 1}


@dataclass(frozen=True, slots=True)
class Need:
    """A predecessor of a job: its place among the jobs, and the argument that receives its result.

    `job`: the id of a job that was submitted before the workflow; then it has no place.
    """

    index: int
    argument: str = ""
    position: int | None = None
    job: uuid.UUID | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A job of a workflow that is not submitted yet. Pass it as an argument of a later job to pass its result."""

    index: int
    pool: str
    command: str
    arguments: Mapping[str, Any]
    options: JobOptions
    needs: tuple[Need, ...] = ()
    policy: str = CANCEL


class Workflow:
    """Collects jobs and their order, and submits them together.

    >>> flow = Workflow("night")
    >>> parts = flow.group("primes", "count", [{"below": 10}, {"below": 20}])
    >>> total = flow.job("sums", "total", numbers=parts, on_failure="run")
    >>> report = flow.job("mail", "send", text="done", after=[total])
    >>> [need.index for need in total.needs], [need.index for need in report.needs]
    ([0, 1], [2])
    """

    def __init__(self, name: str = "", *, owner: Any = None) -> None:
        self.name, self.owner = name, owner
        self.steps: list[Step] = []

    def job(
        self,
        pool: str,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        after: Iterable[Step | Job | uuid.UUID | str] = (),
        on_failure: str = CANCEL,
        **more: Any,
    ) -> Step:
        """Add a job. It takes the options of `submit`, apart from `idempotency_key` and `owner`.

        An argument that is a step, or a list of steps, receives their results. The job waits for these steps and for
        those in `after`. A job that was submitted before may stand for a step; in `after`, also its id. `on_failure`
        decides what happens if one ends without success: `cancel` this job, or `run` it with None as that result.
        """
        options, rest = JobOptions.among(more)
        if options.owner is not None or options.unique is not None:
            raise BadRequest("owner: give it to the workflow; unique: a job of a workflow is always a new one")
        if options.depends_on:
            raise BadRequest("depends_on: a job of a workflow has `after` in its place")
        if isinstance(after, str | Mapping) or not isinstance(after, Iterable):
            raise BadRequest(f"after: must be a list of jobs, or of their ids, not {type(after).__name__}")
        if not isinstance(arguments, Mapping | None):
            raise BadRequest(f"arguments: must be a dict, not {type(arguments).__name__}")
        given, needs = {}, [self._after(step) for step in after]
        for name, value in {**(arguments or {}), **rest}.items():
            found = list(self._results(name, value))
            needs += found
            if not found:
                given[name] = value
        step = Step(len(self.steps), pool, command, given, options, tuple(needs), predecessors.check_policy(on_failure))
        self.steps.append(step)
        return step

    def group(
        self, pool: str, command: str, rows: Iterable[Mapping[str, Any]], *, after: Iterable[Any] = (), **options: Any
    ) -> list[Step]:
        """Add one job for each dict of arguments. Give the list to a later job, which is then the callback."""
        first = tuple(after) if isinstance(after, Iterable) and not isinstance(after, str) else after
        if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
            raise BadRequest(f"rows: must be a list of dicts of arguments, not {type(rows).__name__}")
        return [self.job(pool, command, row, after=first, **options) for row in rows]

    def chain(self, pool: str, commands: Iterable[str], argument: str, value: Any, **options: Any) -> Step:
        """Add jobs that each receive the result of the one before as `argument`, the first one `value`."""
        last = value
        if isinstance(commands, str):
            raise BadRequest(f"commands: must be a list of names, such as [{shown(commands)}], not a str")
        for command in commands:
            last = self.job(pool, command, {argument: last}, **options)
        if not isinstance(last, Step):
            raise BadRequest("commands: a chain needs at least one command")
        return last

    def submit(self) -> JobWorkflow:
        """Store all jobs in one transaction; those without a predecessor are sent on its commit."""
        return submit(self.steps, self.name, self.owner)

    async def asubmit(self) -> JobWorkflow:
        """As `submit`, for an event loop."""
        return await sync_to_async(self.submit)()

    def _results(self, name: str, value: Any) -> Iterator[Need]:
        if isinstance(value, Step | Job):
            yield self._need(value, name)
        elif isinstance(value, list | tuple) and any(isinstance(one, Step | Job) for one in value):
            for position, one in enumerate(value):
                if not isinstance(one, Step | Job):
                    raise BadRequest(
                        f"{name}: a list of results may have only steps and jobs, not {type(one).__name__}"
                    )
                yield self._need(one, name, position)
        elif _holds_step(value):
            raise BadRequest(f"{name}: a job inside a value receives no result; give the job, or a list of jobs")

    def _need(self, value: Step | Job, name: str = "", position: int | None = None) -> Need:
        if isinstance(value, Job):
            return Need(EARLIER, name, position, value.pk)
        return Need(self._index(value), name, position)

    def _after(self, value: Any) -> Need:
        if isinstance(value, uuid.UUID | str):
            return Need(EARLIER, job=predecessors.id_of("after", value))
        return self._need(value)

    def _index(self, step: Any) -> int:
        if not isinstance(step, Step) or step.index >= len(self.steps) or self.steps[step.index] is not step:
            raise BadRequest("after: only jobs that were added to this workflow before can be waited for")
        return step.index


def _holds_step(value: Any, depth: int = 8) -> bool:
    """Whether a step is inside a value. Its fields would be stored in place of its result."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return any(isinstance(one, Step) or (depth > 0 and _holds_step(one, depth - 1)) for one in parts)


def submit(steps: Sequence[Step], name: str = "", owner: Any = None) -> JobWorkflow:
    """Check the jobs, and store them with their edges. An error names the job by its place, from 0."""
    if not isinstance(name, str) or len(name) > 100 or not name.isprintable():
        raise BadRequest("name: must be printable text of at most 100 characters")
    if not 1 <= len(steps) <= MOST_JOBS:
        raise BadRequest(f"jobs: a workflow has 1 to {MOST_JOBS} jobs, not {len(steps)}")
    if sum(len(step.needs) for step in steps) > MOST_EDGES:
        raise BadRequest(f"jobs: a workflow has at most {MOST_EDGES} dependencies")
    columns: list[dict[str, Any]] = []
    targets: dict[tuple[str, str], JobTarget] = {}
    for step in steps:
        try:
            key = str(step.pool), str(step.command)
            targets[key] = target = targets.get(key) or JobTarget(step.pool, step.command)
            columns.append(_columns(step, target, owner))
        except BrokerError as error:
            raise _of_job(step.index, error) from None
    earlier = list(dict.fromkeys(need.job for step in steps for need in step.needs if need.job))
    caller, ids = current(), uuid7s(earlier)
    with transaction.atomic(using=schema.alias()):
        if earlier:
            predecessors.keep(earlier, "after")
        flow = JobWorkflow.objects.create(name=name, owner=columns[0]["owner"])
        shared = {"workflow": flow, "key": caller.key if caller else ""}
        jobs = [Job(id=next(ids), **shared, **one) for one in columns]
        Job.objects.bulk_create(jobs, batch_size=BATCH)
        JobEdge.objects.bulk_create(list(_edges(steps, jobs)), batch_size=BATCH)
        for pool in {job.pool for job in jobs}:
            mine = [job for job in jobs if job.pool == pool]
            check_room(pool, sum(job.size for job in mine), caller, len(mine))
    # Not in the transaction above: a test runs jobs immediately only outside transactions.
    after_end.announce(functools.partial(announce, job) for job in jobs)
    if earlier:
        waiting = [jobs[step.index].pk for step in steps if any(need.job for need in step.needs)]
        on_commit(lambda: predecessors.settle(waiting, earlier))
    return flow


def _columns(step: Step, target: JobTarget, owner: Any) -> dict[str, Any]:
    arguments = store(step.arguments)
    target.check(arguments, later=frozenset(need.argument for need in step.needs if need.argument))
    return {
        **step.options.columns(),
        "owner": JobOptions(owner=owner).columns()["owner"],
        "pool": step.pool,
        "command": step.command,
        "arguments": arguments,
        "size": len(json.dumps(arguments)),
        "hooked": target.hooked,
        "limit_key": target.limit_key(arguments),
        "state": BLOCKED if step.needs else QUEUED,
        "sent_at": None if step.needs else Now(),
    }


def _of_job(index: int, error: BrokerError) -> BrokerError:
    details = {"job": index, **error.details}
    return type(error)(f"job {index}: {error.message}", outcome=error.outcome, details=details)


def _edges(steps: Sequence[Step], jobs: Sequence[Job]) -> Iterator[JobEdge]:
    for step in steps:
        for need in step.needs:
            given = {"policy": step.policy, "argument": need.argument, "position": need.position}
            yield JobEdge(job=jobs[step.index], needs_id=need.job or jobs[need.index].pk, **given)


# Release.


def on_end(ended: Sequence[after_end.Ended]) -> Iterator[after_end.Announcement]:
    """Release the jobs that wait for these ones, in the transaction of their end."""
    yield from release(_waiting_for([one.job.pk for one in ended]))


def release(job_ids: Iterable[Any]) -> Iterator[after_end.Announcement]:
    """Queue or cancel those blocked jobs whose predecessors allow it, and what follows from a cancellation.

    The rows are locked first: of two transactions that end the last two predecessors, the second one then reads the
    end of the first, and releases the job.
    """
    found = sorted(set(job_ids))
    while found:
        ids, found = found[:BATCH], found[BATCH:]
        blocked = Job.objects.filter(pk__in=ids, state=BLOCKED).order_by("pk")
        list(blocked.select_for_update(no_key=True).values_list("pk"))
        yield from _queue_plain(ids)
        over: list[ends.End] = []
        for job in blocked:
            if bad := refusal(job):
                over.append(_end(job, CANCELLED, "cancelled", f"{bad}, which this one waited for."))
            elif not waits(job):
                try:
                    queue(job)
                    yield functools.partial(send_on_commit, job)
                except BrokerError as error:
                    over.append(_end(job, FAILED, error.code, error.message))
        written = ends.write(over, steps=False)
        gone = [after_end.Ended(end.job, end.transition.state, end.error) for end in over if end.job.pk in written]
        yield from failure_hook.report(gone)
        for one in gone:
            yield functools.partial(emit_finished, one.job.pk)
        found += _waiting_for([one.job.pk for one in gone])


def _queue_plain(ids: Sequence[Any]) -> Iterator[after_end.Announcement]:
    """Queue those of these jobs that receive no results, by one statement: thousands may wait for one job."""
    given = JobEdge.objects.filter(job=OuterRef("pk")).exclude(argument="")
    plain = Job.objects.filter(~Exists(_active()), ~Exists(_refused()), ~Exists(given), pk__in=ids, state=BLOCKED)
    pools: dict[str, list[Any]] = {}
    rows = list(plain.order_by("pk").values_list("pk", "pool", "run_after"))
    for job_id, pool, run_after in rows:
        due = pools.setdefault(pool, [])
        if run_after is None or run_after <= utc_now():
            due.append(job_id)
    if rows:
        Job.objects.filter(pk__in=[row[0] for row in rows]).move(QUEUED, **QUEUED_NOW)
    for pool, due in pools.items():
        if due:
            yield functools.partial(send_many_on_commit, pool, due)


def _active() -> QuerySet[JobEdge]:
    return JobEdge.objects.filter(job=OuterRef("pk"), needs__state__in=ACTIVE)


def _refused() -> QuerySet[JobEdge]:
    return JobEdge.objects.filter(job=OuterRef("pk"), needs__state__in=UNSUCCESSFUL, policy=CANCEL)


def _waiting_for(job_ids: Sequence[Any]) -> list[Any]:
    if not job_ids:
        return []
    connection, key = connections[schema.alias()], Job._meta.pk
    ids = [key.get_db_prep_value(one, connection) for one in job_ids]
    # Not by the ORM: each write of ends runs it, and there it would take a third of the write.
    statement = (
        f"select distinct edge.job_id from {JobEdge._meta.db_table} edge join {Job._meta.db_table} job"
        f" on job.id = edge.job_id where job.state = %s and edge.needs_id in ({', '.join(['%s'] * len(ids))})"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [BLOCKED, *ids])
        return [key.to_python(row[0]) for row in cursor.fetchall()]


def _end(job: Job, state: str, code: str, message: str) -> ends.End:
    error = {"code": code, "message": message, "outcome": "not_started", "details": {}}
    return ends.End(job, Transition(state, counts=False), error, source=BLOCKED)


def waits(job: Job) -> bool:
    """Whether a predecessor has not ended. It reads no results: a callback asks this for each of its predecessors."""
    return job.edges_in.filter(needs__state__in=ACTIVE).exists()


def refusal(job: Job) -> str:
    """Why the job may not run: a predecessor that must succeed did not. Empty: it may."""
    refused = job.edges_in.filter(needs__state__in=UNSUCCESSFUL, policy=CANCEL).order_by("pk")
    bad = refused.values_list("needs_id", "needs__pool", "needs__command", "needs__state").first()
    return f"The job {bad[0]} ({bad[1]}.{bad[2]}) is {bad[3]}" if bad else ""


def queue(job: Job) -> None:
    """Move a blocked job to the queue, with the results of its predecessors. The caller holds its row."""
    arguments = dependencies.merged(job.arguments, _results(job))
    job.arguments, job.size, job.state = arguments, len(json.dumps(arguments)), QUEUED
    fields = {"arguments": arguments, "size": job.size, **QUEUED_NOW}
    if job.limit_key:  # the pool had a limit by an argument, which may be one of the results
        fields["limit_key"] = job.limit_key = limits.current_key(job.pool, arguments)
    Job.objects.filter(pk=job.pk).move(QUEUED, **fields)


def _results(job: Job) -> Iterator[tuple[str, int | None, Any]]:
    size = 0
    for edge in job.edges_in.exclude(argument="").select_related("needs").order_by("pk").iterator(chunk_size=50):
        if edge.needs.state in TERMINAL:
            value = storable(edge.needs.value)
            size += len(json.dumps(value))
            if size > MOST_RESULTS:
                raise PayloadTooLarge(f"The results of its predecessors have more than {MOST_RESULTS} bytes.")
            yield edge.argument, edge.position, value


def release_missed() -> int:
    """Release jobs whose predecessors have ended in another way; returns the number of candidates."""
    blocked = Job.objects.filter(Q(~Exists(_active())) | Q(Exists(_refused())), state=BLOCKED)
    ids = list(blocked.order_by("pk").values_list("pk", flat=True)[:BATCH])
    if ids:
        with transaction.atomic(using=schema.alias()):
            announcements = list(release(ids))
        after_end.announce(announcements)
    return len(ids)


def state_of(states: Mapping[str, int]) -> str:
    """The state of a workflow, from the number of its jobs in each state.

    >>> state_of({"succeeded": 2, "blocked": 1}), state_of({"succeeded": 2, "failed": 1}), state_of({"succeeded": 3})
    ('running', 'failed', 'succeeded')
    """
    if any(states.get(state) for state in (*ACTIVE, SCHEDULED)):
        return "running"
    return "failed" if any(states.get(state) for state in UNSUCCESSFUL) else "succeeded"


def prune() -> int:
    """Delete workflows whose jobs are all gone; returns the number."""
    empty = JobWorkflow.objects.filter(~Exists(Job.objects.filter(workflow=OuterRef("pk"))))
    ids = list(empty.values_list("pk", flat=True)[:BATCH])
    return JobWorkflow.objects.filter(pk__in=ids).delete()[1].get(JobWorkflow._meta.label, 0) if ids else 0


after_end.steps.append(on_end)
predecessors.release = release

"""submit(): write the row in the caller's transaction, send the message after its commit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from asgiref.sync import sync_to_async
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from snakepit.pools.broker.caller import current
from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.jobs import in_process, messages, predecessors, unique
from snakepit.pools.jobs.arguments import store
from snakepit.pools.jobs.options import JobOptions, check_key, show_options
from snakepit.pools.jobs.predecessors import NOTHING, Predecessors
from snakepit.pools.jobs.room import count_room, is_far
from snakepit.pools.jobs.signals import emit, job_submitted
from snakepit.pools.jobs.target import JobTarget
from snakepit.pools.models import Job, JobEdge, schema
from snakepit.pools.models.job import uuid7s
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.states import BLOCKED, QUEUED

CONTENDED = "idempotency_key: jobs with this key are being added and deleted concurrently; try again"


@show_options
def submit(
    pool: str,
    command: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    idempotency_key: str | None = None,
    **more: Any,
) -> Job:
    """Store a job and return it. Its message is sent when the surrounding transaction commits.

    `arguments` and `more` together are the command's keyword arguments. Pass a parameter with the name of an option, or
    called `pool`, `command` or `arguments`, in `arguments`. `JobOptions` has the options.

    `retry` decides which failed attempts are repeated: `never`; `safe`: those that did not start, or whose command is
    idempotent; `lost`: also those with an unknown outcome after a crash (at least once); `always`: also those whose
    command raised. If this owner has used the `idempotency_key` in this pool before, the existing job is returned.
    With `unique`, an existing job that counts as the same is returned, with `existed` set: see `Unique`.
    A job that has not begun at its `expires` is cancelled; one that has not ended at its `deadline` fails.
    `timeout` and `backoff` are seconds, `retention` is seconds after the end. `owner` is a user or a user name.
    The job waits for the end of the jobs in `depends_on`, and of a job that is an argument: it receives its result. If
    one of them ends without success, `on_failure` decides: `cancel` this job, or `run` it.
    """
    return enqueue(*prepare(pool, command, arguments, idempotency_key, more))


def prepare(
    pool: str,
    command: str,
    arguments: Mapping[str, Any] | None,
    idempotency_key: str | None,
    more: Mapping[str, Any],
) -> tuple[dict[str, Any], unique.Unique | None, Predecessors]:
    """Check a job that `enqueue` shall insert: its columns, what it is unique by, and the jobs that it waits for."""
    options, rest = JobOptions.among(more)
    given, needs = predecessors.read(options.depends_on, options.on_failure, _merged(arguments, rest))
    stored = store(given)
    checked = options.columns()
    key = check_key(idempotency_key)
    target = JobTarget(pool, command)
    only = unique.of(options.unique)
    target.check(stored, later=needs.arguments, unique_by=unique.names_of(only))
    wanted = {**checked, "pool": pool, "command": command, "arguments": stored, "hooked": target.hooked}
    wanted["limit_key"] = target.limit_key(stored)
    return {**wanted, "idempotency_key": key}, only, needs


async def asubmit(
    pool: str, command: str, arguments: Mapping[str, Any] | None = None, **options_and_arguments: Any
) -> Job:
    """As `submit`, for an event loop, with the same options and arguments."""
    return await sync_to_async(submit)(pool, command, arguments, **options_and_arguments)


def _merged(arguments: Mapping[str, Any] | None, more: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not more or not isinstance(arguments, Mapping | None):
        return arguments  # `store` refuses what is no mapping
    return {**(arguments or {}), **more}


def enqueue(
    wanted: Mapping[str, Any],
    only: unique.Unique | None = None,
    needs: Predecessors = NOTHING,
    stored: Callable[[Job], None] | None = None,
) -> Job:
    """Insert a checked job, or find the one with its idempotency key, or the same unique one.

    A new job is sent on commit, or waits for its predecessors; before that, `stored` gets it.
    """
    caller, size = current(), len(json.dumps(wanted["arguments"]))
    unique_key = ""
    if only is not None:
        unique_key = only.key(wanted["pool"], wanted["command"], wanted["owner"], wanted["arguments"])
    counted = not is_far(wanted["pool"], size, caller)
    several = counted or only is not None or bool(needs) or bool(wanted["idempotency_key"])
    for _ in range(3):  # the job with the key may be deleted between insert and read
        if wanted["idempotency_key"] and (found := _same(wanted)):
            return found
        try:
            # A savepoint: on PostgreSQL a conflict would abort the caller's transaction. One insert needs none.
            with transaction.atomic(using=schema.alias()) if several else nullcontext():
                if existing := _locked(wanted, only, unique_key, needs):
                    return existing
                job = Job.objects.create(
                    **wanted,
                    key=caller.key if caller else "",
                    size=size,
                    unique_key=unique_key,
                    **_start_of(needs),  # after `_locked`, which refuses an id that no job has
                )
                predecessors.add([job], needs)
                if counted:
                    count_room(job.pool, size, caller)
        except IntegrityError:
            if not wanted["idempotency_key"]:
                raise
            continue
        if stored is not None:
            stored(job)
        announce(job)
        _settle_on_commit(job, needs.ids)
        return job
    raise BadRequest(CONTENDED)


def _locked(wanted: Mapping[str, Any], only: unique.Unique | None, unique_key: str, needs: Predecessors) -> Job | None:
    """Take the locks of an insert in this transaction; return the job that counts as the same."""
    if needs:
        predecessors.keep(needs.ids)
    if only is None:
        return None
    unique.lock(wanted["pool"], wanted["command"], unique_key)
    return only.existing([unique_key]).get(unique_key)


def _start_of(needs: Predecessors) -> dict[str, Any]:
    """The columns of a new job that depend on whether it waits for others."""
    return {"id": next(uuid7s(needs.ids)), "state": BLOCKED, "sent_at": None} if needs else {"sent_at": Now()}


def _settle_on_commit(job: Job, needs: Sequence[Any]) -> None:
    def settle() -> None:
        if predecessors.settle([job.pk], needs):
            job.refresh_from_db()

    if needs:
        on_commit(settle)


def announce(job: Job) -> None:
    """Send a new job and its signal, once the transaction around is committed."""
    if job.state != BLOCKED:
        job.sent_at = job.created_at  # instead of a query; the row has the database's time
    on_commit(lambda: _announce(job))


def send_on_commit(job: Job) -> None:
    """Send a job that was stored before and is due now, once the transaction around is committed."""
    on_commit(lambda: _send(job))


def send_many_on_commit(pool: str, ids: Sequence[Any]) -> None:
    """As `send_on_commit`, for jobs of one pool, with one message."""
    on_commit(lambda: send_many(pool, ids))


def send_many(pool: str, ids: Sequence[Any]) -> None:
    """Send one hint for stored jobs of a pool. Those that are not sent are left to the next reconcile."""
    sent = set(messages.send_many(ids, messages.queue_of(pool)).ids)
    if unsent := [job_id for job_id in ids if job_id not in sent]:
        Job.objects.filter(pk__in=unsent, state=QUEUED, attempts=0).update(sent_at=None)


def on_commit(work: Callable[[], Any]) -> None:
    """Run it once the transaction around is committed, or now if a test runs its jobs immediately."""
    if in_process.runner is not None and in_process.runner.runs_now():
        work()
    else:
        # Not a partial: Django logs the __qualname__ of a function that fails, and a partial has none. The job is
        # stored by now, so whatever fails here must not fail its submission.
        transaction.on_commit(work, using=schema.alias(), robust=True)


def _announce(job: Job) -> None:
    emit(job_submitted, job)
    _send(job)


def _send(job: Job) -> None:
    if job.state == BLOCKED or (job.run_after is not None and job.run_after > utc_now()):
        return
    sent = messages.send(job.pk, messages.queue_of(job.pool))
    if not sent:
        # The next reconcile sends it, instead of the first one after JOBS_RESEND.
        Job.objects.filter(pk=job.pk, state=QUEUED, attempts=job.attempts, sends=job.sends).update(sent_at=None)
    if in_process.runner is not None or (sent and messages.runs_here()):
        job.refresh_from_db()


def _same(wanted: Mapping[str, Any]) -> Job | None:
    key = {name: wanted[name] for name in ("owner", "pool", "idempotency_key")}
    found = Job.objects.filter(**key).first()
    if found:
        check_same(found, wanted["command"], wanted["arguments"])
        found.existed = True
    return found


def check_same(found: Job, command: str, arguments: Mapping[str, Any]) -> None:
    """Refuse an idempotency key whose job has another command or other arguments."""
    stored = found.arguments
    if found.command == command and stored != arguments:  # results of predecessors may have come since then
        later = set(JobEdge.objects.filter(job=found).exclude(argument="").values_list("argument", flat=True))
        stored = {name: value for name, value in stored.items() if name not in later}
    if (found.command, stored) != (command, arguments):
        raise BadRequest(
            "idempotency_key: already used for another command or other arguments; use a new key",
            details={"job": str(found.pk)},
        )

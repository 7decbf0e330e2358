"""submit(): write the row in the caller's transaction, send the message after its commit."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import timezone

from snakepit.pools import conf
from snakepit.pools.broker.caller import current
from snakepit.pools.broker.errors import BadArguments, BadRequest, BrokerError, PoolUnknown, no_command
from snakepit.pools.broker.spec import PoolSpec
from snakepit.pools.client import shared
from snakepit.pools.jobs import commands, in_process, messages
from snakepit.pools.jobs.arguments import check_size, store
from snakepit.pools.jobs.room import check_room
from snakepit.pools.jobs.schema_check import problems
from snakepit.pools.jobs.signals import emit, job_submitted
from snakepit.pools.models import Job, Pool, schema
from snakepit.pools.models.job import RETRIES, join_tags
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.states import QUEUED

TAG = re.compile(r"[a-z0-9][a-z0-9_.:-]{0,49}")
MOST_TAGS = 16
NAME = re.compile(r"[^\W\d]\w{0,199}")


def submit(
    pool: str,
    command: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    priority: int = 0,
    run_after: datetime | None = None,
    deadline: datetime | None = None,
    timeout: float | None = None,
    max_attempts: int | None = None,
    backoff: float | None = None,
    retry: str = "lost",
    idempotency_key: str | None = None,
    tags: Sequence[str] = (),
    owner: Any = None,
    retention: int | None = None,
    **more: Any,
) -> Job:
    """Store a job and return it. Its message is sent when the surrounding transaction commits.

    `arguments` and `more` together are the command's keyword arguments. Pass a parameter with the name of an option
    below, or called `pool`, `command` or `arguments`, in `arguments`.

    `retry` decides which failed attempts are repeated: `never`; `safe`: those that did not start, or whose command is
    idempotent; `lost`: also those with an unknown outcome after a crash (at least once); `always`: also those whose
    command raised. If this owner has used the `idempotency_key` in this pool before, the existing job is returned.
    `timeout` and `backoff` are seconds, `retention` is seconds after the end. `owner` is a user or a user name.
    """
    settings = conf.current()
    wanted: dict[str, Any] = {
        "pool": pool,
        "command": command,
        "arguments": store(_merged(arguments, more)),
        "priority": _whole("priority", priority, -100, 100),
        "run_after": _moment("run_after", run_after),
        "deadline": _moment("deadline", deadline),
        "timeout": None if timeout is None else _seconds("timeout", timeout, 0.001, 31 * 86_400),
        "max_attempts": _whole("max_attempts", max_attempts or settings.jobs_max_attempts, 1, 100),
        "backoff": _seconds("backoff", settings.jobs_backoff if backoff is None else backoff, 0, 3600),
        "retry": _one_of("retry", retry, RETRIES),
        "idempotency_key": _text("idempotency_key", idempotency_key or "", 200),
        "tags": _tags(tags),
        "owner": _text("owner", owner if isinstance(owner, str) else owner.get_username() if owner else "", 150),
        "retention": _whole("retention", settings.jobs_retention if retention is None else retention, 0, 10**9),
    }
    _check_horizon(run_after, retention)
    _check_target(pool, command, wanted["arguments"])
    _check_command(pool, command, wanted["arguments"])
    return enqueue(wanted)


async def asubmit(
    pool: str, command: str, arguments: Mapping[str, Any] | None = None, **options_and_arguments: Any
) -> Job:
    """As `submit`, for an event loop, with the same options and arguments."""
    return await sync_to_async(submit)(pool, command, arguments, **options_and_arguments)


def _merged(arguments: Mapping[str, Any] | None, more: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not more or not isinstance(arguments, Mapping | None):
        return arguments  # `store` refuses what is no mapping
    return {**(arguments or {}), **more}


def enqueue(wanted: Mapping[str, Any]) -> Job:
    """Insert a checked job, or find the one with its idempotency key. A new job is sent on commit."""
    caller, size = current(), len(json.dumps(wanted["arguments"]))
    for _ in range(3):  # the job with the key may be deleted between insert and read
        if wanted["idempotency_key"] and (found := _same(wanted)):
            return found
        try:
            # A savepoint: on PostgreSQL a conflict would abort the caller's transaction.
            with transaction.atomic(using=schema.alias()):
                job = Job.objects.create(**wanted, key=caller.key if caller else "", size=size, sent_at=Now())
                check_room(job.pool, size, caller)
        except IntegrityError:
            if not wanted["idempotency_key"]:
                raise
            continue
        job.refresh_from_db(fields=["sent_at"])
        if in_process.runner is not None and in_process.runner.runs_now():
            _announce(job)
        else:
            _announce_on_commit(job)
        return job
    raise BadRequest("idempotency_key: jobs with this key are being added and deleted concurrently; try again")


def _announce_on_commit(job: Job) -> None:
    # Not a partial: Django logs the __qualname__ of a function that fails, and a partial has none. The job is stored
    # by now, so whatever fails here must not fail its submission.
    transaction.on_commit(lambda: _announce(job), using=schema.alias(), robust=True)


def _announce(job: Job) -> None:
    emit(job_submitted, job)
    if job.run_after is not None and job.run_after > utc_now():
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
    if found and (found.command, found.arguments) != (wanted["command"], wanted["arguments"]):
        raise BadRequest(
            "idempotency_key: already used for another command or other arguments; use a new key",
            details={"job": str(found.pk)},
        )
    if found:
        found.existed = True
    return found


def _check_horizon(run_after: datetime | None, retention: int | None) -> None:
    """Refuse what would hold a place of the queue, or a row, for longer than the caller's limits allow."""
    if (caller := current()) is None:
        return
    delay, longest = (run_after - utc_now()).total_seconds() if run_after else 0.0, caller.smallest("run_after")
    if delay > longest:
        message = f"run_after: is {delay:.0f} s from now; your limit run_after is {longest:.0f} s"
        raise BadRequest(message, details={"limit": "run_after", "value": longest})
    if retention is not None and retention > (most := caller.smallest("retention")):
        message = f"retention: {retention} is more than {most:.0f} s, your limit retention"
        raise BadRequest(message, details={"limit": "retention", "value": most})


def _check_target(pool: str, command: str, arguments: Mapping[str, Any]) -> None:
    if not isinstance(pool, str) or "\0" in pool:
        raise BadRequest("pool: must be the name of a pool")
    if not isinstance(command, str) or not NAME.fullmatch(command):
        raise BadRequest(f"command: {str(command)[:50]!r} is not the name of a command")
    spec = _definition(pool)
    if spec is None or not spec.enabled:
        raise PoolUnknown(f"No pool is named {pool!r}." if spec is None else f"The pool {pool!r} is disabled.")
    check_size(pool, arguments, spec.max_payload)


def _definition(pool: str) -> Pool | PoolSpec | None:
    if in_process.runner is not None and (spec := in_process.runner.spec(pool)):
        return spec
    row = Pool.objects.filter(name=pool).first()
    # A starting broker writes the settings' pools as rows. Jobs may be submitted before that.
    return next((one for one in conf.pool_specs() if one.name == pool), None) if row is None else row


def _check_command(pool: str, command: str, arguments: Mapping[str, Any]) -> None:
    """Refuse what the pool's workers would refuse. Without an answer of the broker, the first attempt finds the error.

    A rollout may have changed the commands since they were read. Therefore a refusal needs a fresh answer.
    """
    client = shared.client()
    known = commands.cache.find(client, pool)
    if known and _refusal(known, pool, command, arguments):
        known = commands.cache.find(client, pool, fresh=True)
        if known and (refusal := _refusal(known, pool, command, arguments)):
            raise refusal


def _refusal(known: commands.Commands, pool: str, command: str, arguments: Mapping[str, Any]) -> BrokerError | None:
    if command not in known:
        return no_command(pool, command, known)
    if found := problems(known[command].arguments, arguments):
        return BadArguments("; ".join(found.values()), details={"arguments": found})
    return None


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadRequest(f"{name}: {value!r} is not a whole number from {low} to {high}")
    return value


def _seconds(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRequest(f"{name}: {value!r} is not a number of seconds")
    if not low <= value <= high:
        raise BadRequest(f"{name}: {value} is outside {low} to {high} seconds")
    return float(value)


def _moment(name: str, value: Any) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime) or timezone.is_naive(value):
        raise BadRequest(f"{name}: {value!r} is not a datetime with a time zone, such as 2026-01-31T12:00:00Z")
    return value


def _one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise BadRequest(f"{name}: {value!r} is not one of {', '.join(allowed)}")
    return str(value)


def _text(name: str, value: str, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise BadRequest(f"{name}: must be printable text of at most {longest} characters")
    return value


def _tags(tags: Any) -> str:
    if isinstance(tags, str) or not isinstance(tags, Sequence) or len(tags) > MOST_TAGS:
        raise BadRequest(f"tags: must be a list of at most {MOST_TAGS} tags")
    for tag in tags:
        if not isinstance(tag, str) or not TAG.fullmatch(tag):
            raise BadRequest(f"tags: {tag!r} must have 1 to 50 characters: lower-case letters, digits and _.:-")
    return join_tags(list(dict.fromkeys(tags)))

"""The hook `on_failure` of an adapter: a job that reports the final failure of another one to its adapter.

The end of a job as `failed`, `lost` or `quarantined` and the row of the hook's job are one transaction. Therefore the
hook runs at least once for each final failure, also if a process dies in between. It has the bounds of a job:
HOOK_TIMEOUT for an attempt, `JOBS_MAX_ATTEMPTS` attempts. Its own failure is the failure of its job, and changes
nothing else.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from django.db.models.functions import Now

from snakepit.pools import conf
from snakepit.pools.broker.spec import ON_FAILURE
from snakepit.pools.client import shared
from snakepit.pools.jobs import after_end, commands
from snakepit.pools.jobs.submission import announce
from snakepit.pools.models import Job
from snakepit.pools.models.job import join_tags
from snakepit.pools.models.states import FAILED, LOST, QUARANTINED

FAILURES = (FAILED, LOST, QUARANTINED)
HOOK_TIMEOUT = 60.0  # seconds for one attempt
MOST_ARGUMENTS = 65_536  # bytes of the failed job's arguments that the hook receives
TAG = "on-failure"


def report(ended: Sequence[after_end.Ended]) -> Iterator[after_end.Announcement]:
    """Store the jobs that run the hooks of these jobs' adapters. A hook's own job has none."""
    for one in ended:
        if one.state in FAILURES and one.job.command != ON_FAILURE and _has_hook(one.job):
            hook = _store(one)
            yield functools.partial(announce, hook)


def _store(ended: after_end.Ended) -> Job:
    job, arguments = ended.job, {"job": facts(ended.job, ended.state, ended.error)}
    return Job.objects.create(
        pool=job.pool,
        command=ON_FAILURE,
        arguments=arguments,
        size=len(json.dumps(arguments)),
        priority=job.priority,
        timeout=HOOK_TIMEOUT,
        max_attempts=conf.current().jobs_max_attempts,
        backoff=conf.current().jobs_backoff,
        retry="always",
        tags=join_tags([TAG]),
        owner=job.owner,
        key=job.key,
        retention=job.retention,
        sent_at=Now(),
    )


def facts(job: Job, state: str, error: Any) -> dict[str, Any]:
    """The failed job, as the hook receives it.

    >>> facts(Job(pool="digits", command="classify", arguments={"n": 1}), "lost", None)["arguments"]
    {'n': 1}
    """
    small = len(json.dumps(job.arguments)) <= MOST_ARGUMENTS
    return {
        "id": str(job.pk),
        "pool": job.pool,
        "command": job.command,
        "arguments": job.arguments if small else None,
        "state": state,
        "error": error,
        "attempts": job.attempts,
        "owner": job.owner,
        "tags": job.tag_list,
    }


def _has_hook(job: Job) -> bool:
    """Whether the pool has the hook now or, without an answer of its broker, had it when the job was submitted."""
    known = commands.cache.kept(shared.client(), job.pool)
    return ON_FAILURE in known if known else job.hooked


after_end.steps.append(report)

"""Cancel, retry or delete all jobs that a filter matches: a preview with a count first, then bounded batches.

The newest job of the preview bounds the action, so jobs that are submitted meanwhile stay as they are.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db import transaction

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.jobs import after_end, control, deletion, ends, messages
from snakepit.pools.jobs.listing import LARGE, capped_count
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.jobs.shown_value import shown
from snakepit.pools.jobs.signals import emit_finished, emit_requeued
from snakepit.pools.models import Job, schema
from snakepit.pools.models.job import JobQuerySet
from snakepit.pools.models.states import ACTIVE, CANCELLED, QUEUED, RUNNING, TERMINAL, UNSUCCESSFUL, WAITING

BATCH = 200  # jobs of one transaction
COUNTED = 100_000  # a preview counts no further
SAMPLE = 10  # jobs that a preview shows


@dataclass(frozen=True, slots=True)
class Preview:
    """What an action would do now. `upto`: the newest job that it may change; None: it matches no job."""

    count: int
    more: bool  # the count stopped at COUNTED
    sample: tuple[Job, ...]
    upto: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class Result:
    """`left`: the time was over, and the action has not reached all jobs."""

    done: int
    left: bool


def affected(action: str, rows: JobQuerySet) -> JobQuerySet:
    """The rows that the action changes: of others it would change nothing."""
    if action not in ACTIONS:
        raise BadRequest(f"action: {shown(action)} is not one of {', '.join(ACTIONS)}")
    rows = rows.filter(state__in=ACTIONS[action][0])
    return rows.filter(cancel_requested=False) if action == "cancel" else rows


def preview(action: str, rows: JobQuerySet) -> Preview:
    rows = affected(action, rows)
    count, more = capped_count(rows, COUNTED)
    sample = tuple(rows.defer(*LARGE).order_by("-pk")[:SAMPLE])
    return Preview(count, more, sample, sample[0].pk if sample else None)


def act(action: str, rows: JobQuerySet, upto: uuid.UUID | None = None, seconds: float | None = None) -> Result:
    """Do it, oldest job first, in batches until none is left or the time is over."""
    rows = affected(action, rows)
    last = upto or rows.order_by("-pk").values_list("pk", flat=True).first()
    end = None if seconds is None else time.monotonic() + seconds
    done, after, work = 0, uuid.UUID(int=0), ACTIONS[action][1]
    while last is not None:
        batch = list(rows.filter(pk__gt=after, pk__lte=last).order_by("pk").defer(*LARGE)[:BATCH])
        if not batch:
            break
        done += work(batch)
        after = batch[-1].pk
        if end is not None and time.monotonic() > end and after < last:
            return Result(done, rows.filter(pk__gt=after, pk__lte=last).exists())
    return Result(done, left=False)


def _cancel(batch: Sequence[Job]) -> int:
    """As `control.cancel`: end jobs that wait, ask jobs that run."""
    waiting = [job for job in batch if job.state in WAITING]
    ended = ends.write(
        ends.End(job, Transition(CANCELLED, counts=False), job.error, source=job.state) for job in waiting
    )
    rest = [job.pk for job in batch if job.pk not in ended]
    # A job that was claimed meanwhile runs now.
    asked = Job.objects.filter(pk__in=rest, state=RUNNING, cancel_requested=False).update(cancel_requested=True)
    after_end.announce(partial(emit_finished, job_id) for job_id in ended)
    return len(ended) + asked


def _retry(batch: Sequence[Job]) -> int:
    with transaction.atomic(using=schema.alias()):
        again = control.requeue([job.pk for job in batch])
    pools: dict[str, list[Any]] = {}
    for job in batch:
        if job.pk in again:
            pools.setdefault(job.pool, []).append(job.pk)
    for pool, ids in pools.items():
        sent = set(messages.send_many(ids, messages.queue_of(pool)).ids)
        if unsent := [job_id for job_id in ids if job_id not in sent]:  # the next reconcile sends them
            Job.objects.filter(pk__in=unsent, state=QUEUED).update(sent_at=None)
    after_end.announce(partial(emit_requeued, job_id) for job_id in again)
    return len(again)


def _delete(batch: Sequence[Job]) -> int:
    ids, gone = [job.pk for job in batch], 0
    while count := deletion.delete_some(Job.objects.filter(pk__in=ids)):
        gone += count
    return gone


# By action: the states of the jobs that it changes, and the function for a batch of them.
ACTIONS: dict[str, tuple[tuple[str, ...], Callable[[Sequence[Job]], int]]] = {
    "cancel": (ACTIVE, _cancel),
    "retry": (UNSUCCESSFUL, _retry),
    "delete": (TERMINAL, _delete),
}

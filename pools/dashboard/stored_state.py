"""Reads what only the database has for the overview, in a few queries: silent nodes, quarantined, overdue and
ended jobs, whether there are jobs, soft limits."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.db.models.fields.json import KeyTextTransform

from snakepit.pools import conf
from snakepit.pools.dashboard.alerts import COUNTED, EndedJobs, StoredState
from snakepit.pools.diagnostics import machine
from snakepit.pools.diagnostics.doctor import data_directories
from snakepit.pools.jobs.distinct import values_of
from snakepit.pools.jobs.leases import db_unit
from snakepit.pools.jobs.limits import holding_pools
from snakepit.pools.jobs.messages import app_argument
from snakepit.pools.jobs.periodic import late_after
from snakepit.pools.models import Job, Node, PeriodicJob, Pool
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.states import FAILED, LOST, QUARANTINED, QUEUED

LATELY = 3600.0  # seconds for which jobs that failed or were lost need attention
OVERDUE = 60.0  # seconds that a due job may wait for a Celery worker
LATELY_COUNTED = 2000  # of those jobs; of more, the newest are counted
POOLS = 1000  # with queued jobs
GROUPS = 5  # causes that are shown
SILENT = timedelta(seconds=20)  # without an update; the recorder writes every five seconds


def read_stored_state() -> StoredState:
    with db_unit():
        silent = Node.objects.filter(stopped=False).silent_for(SILENT).with_silence().values_list("name", "silence")
        silent_since = tuple((name, time.time() - silence.total_seconds()) for name, silence in silent)
        quarantined = Job.objects.filter(state=QUARANTINED).order_by("-pk")
        ends = [at.timestamp() for at in quarantined.values_list("finished_at", flat=True)[: COUNTED + 1] if at]
        ended = _ended_lately()
        overdue = _overdue()
        late, refused = _schedules()
        limits = Pool.objects.filter(memory_soft_mb__isnull=False).values_list("name", "memory_soft_mb")
        return StoredState(
            silent_nodes=silent_since,
            quarantined=len(ends),
            quarantined_since=min(ends, default=0.0),
            ended_jobs=ended.most,
            ended_more=ended.more,
            ended_others=ended.others,
            late_schedules=tuple(late),
            late_since=min(late.values(), default=0.0),
            refused_schedules=tuple(refused),
            refused_since=min(refused.values(), default=0.0),
            overdue=len(overdue),
            overdue_since=overdue[0].timestamp() if overdue else 0.0,
            uses_jobs=Job.objects.exists(),
            soft_limits=dict(limits),
            full_disks=full_disks(),
            celery=app_argument(),
        )


def full_disks() -> tuple[tuple[str, int], ...]:
    """The file systems of this machine on which the database or the broker's directory cannot grow, and bytes free."""
    try:
        found = machine.rooms(conf.runtime_dir(), *data_directories())
    except OSError:  # a file system that is gone: what needs it reports it
        return ()
    return tuple((room.path, room.free) for room in found if room.is_full)


@dataclass(frozen=True, slots=True)
class _LatelyEnded:
    """`most`: the most frequent causes. `others`: jobs of further ones. `more`: more jobs than are counted."""

    most: tuple[EndedJobs, ...]
    others: int
    more: bool


def _ended_lately() -> _LatelyEnded:
    """The ends without success of the last hour, by command and cause: the same for all who may see the overview."""
    since = utc_now() - timedelta(seconds=LATELY)
    newest = Job.objects.filter(state__in=(FAILED, LOST), finished_at__gte=since).order_by("-finished_at")
    kind = KeyTextTransform("type", KeyTextTransform("details", "error"))
    found = newest.values_list("state", "pool", "command", kind, KeyTextTransform("code", "error"), "finished_at")
    rows = list(found[: LATELY_COUNTED + 1])
    # The message is not shown: it may have values of the arguments.
    kinds = [
        ((state, pool, command, kind if kind and kind.isidentifier() else str(code or "unknown")), at)
        for state, pool, command, kind, code, at in rows[:LATELY_COUNTED]
    ]
    counts = Counter(one for one, _ in kinds)
    first = {one: at.timestamp() for one, at in kinds if at is not None}  # the last one of each is the oldest
    most = tuple(EndedJobs(*one, count=count, since=first[one]) for one, count in counts.most_common(GROUPS))
    return _LatelyEnded(most, len(kinds) - sum(one.count for one in most), len(rows) > LATELY_COUNTED)


def _schedules() -> tuple[dict[str, float], dict[str, float]]:
    """Enabled periodic jobs whose time has passed, and those whose newest run has no job, each with that time."""
    before = utc_now() - late_after()  # each tick moves the times on, also of a run that is missed
    found = PeriodicJob.objects.filter(~Q(problem="") | Q(next_run__lt=before), enabled=True)
    late: dict[str, float] = {}
    refused: dict[str, float] = {}
    for name, next_run, last_run in found.values_list("name", "next_run", "last_run")[:COUNTED]:
        if next_run is not None and next_run < before:
            late[name] = next_run.timestamp()
        else:
            at = last_run or next_run
            refused[name] = at.timestamp() if at is not None else 0.0
    return late, refused


def _overdue() -> list[Any]:
    """When the oldest due jobs were queued, of the pools whose jobs do not wait on purpose.

    The pools are found first: the jobs of a pool that is paused would be read one by one.
    """
    late = utc_now() - timedelta(seconds=OVERDUE)
    waiting = set(values_of("pool", f"state = '{QUEUED}'", [], POOLS))
    on_purpose = Pool.objects.filter(Q(queue_paused=True) | Q(name__in=holding_pools()))
    if not (pools := waiting.difference(on_purpose.values_list("name", flat=True))):
        return []
    due = Job.objects.filter(Q(run_after__isnull=True) | Q(run_after__lt=late), state=QUEUED, queued_at__lt=late)
    due = due.filter(pool__in=sorted(pools)).order_by("queued_at")
    return list(due.values_list("queued_at", flat=True)[: COUNTED + 1])

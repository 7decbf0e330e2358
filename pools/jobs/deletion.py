"""Delete ended jobs with their attempts and output, in small transactions that delay no other write.

A batch ends at BATCH jobs or ENTRIES pieces of output. Rows that another transaction has locked wait for the next call.
Between two batches the process pauses for as long as the batch took: SQLite has one writer at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from django.db import connections, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Now

from snakepit.pools.models import Job, JobEdge, JobEntry, schema
from snakepit.pools.models.states import BLOCKED, TERMINAL

BATCH = 200  # jobs of one transaction
ENTRIES = 5_000  # rows of output of one transaction; one job may have more
LONGEST_PAUSE = 0.05  # seconds between two batches


def prune() -> int:
    """Delete ended jobs whose retention is over; returns the number."""
    gone = 0
    while count := delete_some(Job.objects.filter(expires_at__lt=Now()).order_by("expires_at")):
        gone += count
    return gone


def delete_some(rows: QuerySet[Job]) -> int:
    """Delete the first of these rows that have ended, and pause; returns the number. 0: none is left."""
    begun, ids = time.monotonic(), _first(rows)
    if not ids:
        return 0
    with transaction.atomic(using=schema.alias()):
        count = _delete(_locked(ids))
    threading.Event().wait(min(LONGEST_PAUSE, time.monotonic() - begun))
    return count


def _first(rows: QuerySet[Job]) -> list[Any]:
    ids: list[Any] = []
    entries = 0
    # A job whose result another one still waits for stays until that one has received it.
    needed = JobEdge.objects.filter(needs=OuterRef("pk"), job__state=BLOCKED)
    for job_id, count in rows.filter(~Exists(needed), state__in=TERMINAL).values_list("pk", "entry_count")[:BATCH]:
        if ids and entries + count > ENTRIES:
            break
        ids.append(job_id)
        entries += count
    return ids


def _locked(ids: Sequence[Any]) -> list[Any]:
    """Those that no other transaction has locked. SQLite locks no rows, and its transaction must begin with a write."""
    if not connections[schema.alias()].features.has_select_for_update_skip_locked:
        return list(ids)
    free = Job.objects.filter(pk__in=ids, state__in=TERMINAL).select_for_update(skip_locked=True)
    return list(free.values_list("pk", flat=True))


def _delete(ids: Sequence[Any]) -> int:
    """Delete the rows, their output first: its statement is the first write. A job that was queued again stays."""
    ended = Job.objects.filter(pk__in=ids, state__in=TERMINAL)
    JobEntry.objects.filter(job_id__in=ended.values("pk")).delete()
    return ended.only("pk").delete()[1].get(Job._meta.label, 0)

"""Recycles, deaths and failed starts of the last day, from event rows, which outlive the broker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Count

from snakepit.pools.models import Event
from snakepit.pools.models.moments import utc_now

SPAN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class History:
    recycled: Mapping[str, int]  # by reason
    died: int  # at work
    boot_failures: int
    last_failure: str  # the newest failed start in words; empty: none


def history(pool: str, worker: str = "") -> History:
    """Of a pool, or of one worker."""
    rows = Event.objects.filter(pool=pool, at__gte=utc_now() - SPAN)
    rows = rows.filter(worker=worker) if worker else rows
    counts = {
        (kind, reason): count
        for kind, reason, count in rows.filter(kind__in=["worker.recycled", "worker.died"])
        .order_by()
        .values_list("kind", "reason")
        .annotate(count=Count("id"))
    }
    failed = rows.filter(kind="worker.died", reason="boot_failure").order_by("-id").first()
    return History(
        recycled={reason: count for (kind, reason), count in sorted(counts.items()) if kind == "worker.recycled"},
        died=sum(n for (kind, reason), n in counts.items() if kind == "worker.died" and reason != "boot_failure"),
        boot_failures=counts.get(("worker.died", "boot_failure"), 0),
        last_failure=failed.message if failed else "",
    )

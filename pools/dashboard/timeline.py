"""The timeline of a job: waits and attempts as bars on one time axis. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from snakepit.pools.models import Job, JobAttempt
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.states import shown

LEAST = 0.6  # percent, so that a bar without duration is visible


@dataclass(frozen=True, slots=True)
class TimelineBar:
    """`left` and `width` are percent of the job's whole time; `kind` chooses the colour."""

    title: str
    kind: str
    begun: datetime
    seconds: float
    left: float
    width: float
    open: bool  # it has not ended
    detail: str = ""
    worker: str = ""
    node: str = ""
    evidence: Any = None


def timeline(job: Job, tries: Sequence[JobAttempt], now: datetime | None = None) -> list[TimelineBar]:
    """The bars from the submission to the end, or until now, in order. `tries` by their number."""
    now = now or utc_now()
    end = job.finished_at or now
    first = min([job.created_at, *(one.started_at for one in tries)])
    whole = max(0.001, (end - first).total_seconds())
    found: list[TimelineBar] = []

    def add(title: str, kind: str, span: tuple[datetime, datetime | None], **more: Any) -> None:
        begun, ended = span
        seconds = max(0.0, ((ended or now) - begun).total_seconds())
        left = 100 * max(0.0, (begun - first).total_seconds()) / whole
        width = min(max(LEAST, 100 * seconds / whole), 100)
        found.append(TimelineBar(title, kind, begun, seconds, min(left, 100 - width), width, ended is None, **more))

    waits_from = job.created_at
    for one in tries:
        add("waited", "queued", (waits_from, one.started_at))
        finished = one.finished_at or (job.finished_at if job.ended else None)
        kind = (
            one.outcome
            if one.outcome in ("succeeded", "requeued", "snoozed")
            else "failed"
            if one.outcome
            else "running"
        )
        add(
            f"attempt {one.number}", kind, (one.started_at, finished), detail=_detail(one), worker=one.worker,
            node=one.node, evidence=one.evidence,
        )  # fmt: skip
        waits_from = finished or now
    if job.state == "queued":
        due = f"not before {job.run_after:%Y-%m-%d %H:%M:%S} UTC" if job.run_after and job.run_after > now else ""
        kind = shown(job.state, job.run_after, now)
        add("waits", kind, (max(waits_from, job.queued_at), None), detail=due)
    elif not tries:
        add("waited", "queued", (waits_from, end))
    return found


def _detail(one: JobAttempt) -> str:
    if not one.outcome:
        return f"runs, held by {one.claimed_by}" if one.claimed_by else "runs"
    message = (one.error or {}).get("message", "")
    return f"{one.outcome}: {message}" if message else one.outcome

"""Lists of jobs: filters, pages by key, counts that end. As fast with a hundred thousand jobs as with a hundred.

A job's id holds the time of its making, so that a span of time is a range of keys. A tag has no index: it is looked for
among the newest SCANNED jobs that fit the rest, and whoever asks is told so.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import QuerySet

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.models import Job
from snakepit.pools.models.states import STATES

SCANNED = 20_000  # jobs among which a tag is looked for
COUNTED = 1000  # jobs; more are "1,000+"
LARGE = ("arguments", "result", "result_raw")
SLACK = timedelta(minutes=1)  # between an id and `created_at`, which is judged exactly


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """Which jobs are meant; empty or None: any. Raises BadRequest with the name of the filter that is wrong."""

    pool: str = ""
    state: str = ""
    command: str = ""
    owner: str = ""
    tag: str = ""
    since: datetime | None = None  # created at or after
    until: datetime | None = None  # created before

    def __post_init__(self) -> None:
        if self.state and self.state not in STATES:
            raise BadRequest(f"state: {self.state!r} is not one of {', '.join(STATES)}")
        if "\0" in f"{self.pool}{self.command}{self.owner}{self.tag}":
            raise BadRequest("a filter holds the character NUL")
        for name in ("since", "until"):
            at = getattr(self, name)
            if at is not None and at.tzinfo is None:
                raise BadRequest(f"{name}: needs its time zone, such as 2026-01-31T12:00:00Z")

    def rows(self, among: QuerySet[Job] | None = None) -> QuerySet[Job]:
        rows = Job.objects.all() if among is None else among
        given = {name: getattr(self, name) for name in ("pool", "state", "command", "owner")}
        rows = rows.filter(**{name: value for name, value in given.items() if value})
        if self.since is not None:
            rows = rows.filter(pk__gte=key_at(self.since - SLACK), created_at__gte=self.since)
        if self.until is not None:
            rows = rows.filter(pk__lt=key_at(self.until + SLACK), created_at__lt=self.until)
        if self.tag:
            last = rows.order_by("-pk").values_list("pk", flat=True)[SCANNED : SCANNED + 1].first()
            rows = rows.filter(tags__contains=f",{self.tag},")
            rows = rows.filter(pk__gt=last) if last else rows
        return rows


def page(rows: QuerySet[Job], limit: int, cursor: str = "") -> tuple[list[Job], str | None]:
    """One page, newest first, and the cursor of the next, older one; None at the end. Without arguments and results."""
    if cursor:
        try:
            rows = rows.filter(pk__lt=uuid.UUID(cursor))
        except ValueError:
            raise BadRequest("cursor: pass the `next` of the page before as it is") from None
    found = list(rows.defer(*LARGE).order_by("-pk")[: limit + 1])
    return found[:limit], str(found[limit - 1].pk) if len(found) > limit else None


def capped_count(rows: QuerySet[Job], most: int = COUNTED) -> tuple[int, bool]:
    """How many, and whether there are more than that."""
    found = rows.order_by()[: most + 1].count()
    return min(found, most), found > most


def key_at(moment: datetime) -> uuid.UUID:
    """The smallest id that a job of this moment can have.

    >>> from datetime import UTC
    >>> key_at(datetime(2026, 1, 1, tzinfo=UTC))
    UUID('019b76da-a800-0000-0000-000000000000')
    """
    return uuid.UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)

"""Lists of jobs: filters, keyset pages, capped counts. Their cost does not grow with the number of jobs.

A job's id contains its creation time, so a time span is a range of keys. Tags have no index: a tag filter covers the
newest SCANNED jobs that match the other filters, and the pages show this limit.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import Case, QuerySet, TextField, Value, When
from django.db.models.functions import Cast, Concat, Left

from snakepit.pools import conf
from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.jobs.shown_value import shown
from snakepit.pools.models import Job, schema
from snakepit.pools.models.job import JobQuerySet
from snakepit.pools.models.states import SHOWN_STATES
from snakepit.pools.models.strict_json import NotStrict, find_problem, loads

Rows = TypeVar("Rows", bound="QuerySet[Job]")
SCANNED = 20_000  # jobs that a filter without an index covers
COUNTED = 1000  # jobs; above it a count shows as "1,000+"
LARGE = ("arguments", "result", "result_raw")
SHORT = 120  # characters of the arguments in a list
READ = 65_536  # bytes; of larger arguments a list shows only the size, because the database would unpack them all
EARLIEST, LATEST = datetime(1970, 1, 2, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)  # 48 bits of an id hold them
SLACK = timedelta(minutes=1)  # maximum difference between an id's time and `created_at`, which decides


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """Filters for jobs; empty or None matches all. Raises BadRequest with the name of a wrong filter."""

    pool: str = ""
    state: str = ""
    command: str = ""
    owner: str = ""
    tag: str = ""
    since: datetime | None = None  # created at or after
    until: datetime | None = None  # created before
    workflow: str = ""  # its id
    arguments: str = ""  # PostgreSQL: text in the arguments, or a JSON object that they contain

    def __post_init__(self) -> None:
        if self.state and self.state not in SHOWN_STATES:
            raise BadRequest(f"state: {shown(self.state)} is not one of {', '.join(SHOWN_STATES)}")
        for name in ("pool", "command", "owner", "tag", "arguments"):
            if problem := find_problem(getattr(self, name)):  # PostgreSQL rejects it
                raise BadRequest(f"{name}: {problem}; remove it")
        for name in ("since", "until"):
            at = getattr(self, name)
            if at is not None and at.tzinfo is None:
                raise BadRequest(f"{name}: has no time zone; write it as 2026-01-31T12:00:00Z")
            if at is not None and not EARLIEST <= at <= LATEST:
                raise BadRequest(f"{name}: is outside {EARLIEST:%Y} to {LATEST:%Y}")

    def rows(self, among: JobQuerySet | None = None) -> JobQuerySet:
        rows = Job.objects.all() if among is None else among
        rows = rows.shown_as(self.state) if self.state else rows
        given = {name: getattr(self, name) for name in ("pool", "command", "owner")}
        rows = rows.filter(**{name: value for name, value in given.items() if value})
        if self.since is not None:
            rows = rows.filter(pk__gte=key_at(self.since - SLACK), created_at__gte=self.since)
        if self.until is not None:
            rows = rows.filter(pk__lt=key_at(self.until + SLACK), created_at__lt=self.until)
        if self.workflow:
            rows = rows.filter(workflow=_workflow_id(self.workflow))
        if self.tag or self.arguments:
            rows = newest(rows)
        if self.tag:
            rows = rows.filter(tags__contains=f",{self.tag},")
        return _with_arguments(rows, self.arguments) if self.arguments else rows


def newest(rows: Rows) -> Rows:
    """The newest SCANNED of these rows, for a filter without an index."""
    last = rows.order_by("-pk").values_list("pk", flat=True)[SCANNED : SCANNED + 1].first()
    return rows.filter(pk__gt=last) if last else rows


def _workflow_id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise BadRequest(f"workflow: {shown(text)} is not the id of a workflow") from None


def _with_arguments(rows: JobQuerySet, wanted: str) -> JobQuerySet:
    """Those whose arguments contain a JSON object or, if it is none, a text."""
    if connections[schema.alias()].vendor != "postgresql":
        raise BadRequest("arguments: this database cannot search in arguments; PostgreSQL can")
    if (tree := _object(wanted)) is not None:
        return rows.filter(arguments__contains=tree)
    return rows.annotate(arguments_text=Cast("arguments", TextField())).filter(arguments_text__icontains=wanted)


def _object(wanted: str) -> Mapping[str, Any] | None:
    """The JSON object of a search; None if it is another text. BadRequest: no row can contain this object."""
    try:
        if not isinstance(json.loads(wanted), dict):
            return None
    except (ValueError, RecursionError):
        return None
    try:
        found: Mapping[str, Any] = loads(wanted.encode(), max_depth=conf.current().max_depth)
    except NotStrict as error:
        raise BadRequest(f"arguments: the JSON object {error}; no job has such arguments") from None
    return found


# The text of JSON begins where the column does, so the database sends no more than the start.
_SHORT = Case(
    When(size__lte=READ, then=Left(Cast("arguments", TextField()), SHORT)),
    default=Concat(Cast("size", TextField()), Value(" bytes")),
    output_field=TextField(),
)


def page(rows: QuerySet[Job], limit: int, cursor: str = "") -> tuple[list[Job], str | None]:
    """One page, newest first, and the cursor of the next page (None: last page). Without arguments and results."""
    if cursor:
        try:
            rows = rows.filter(pk__lt=uuid.UUID(cursor))
        except ValueError:
            raise BadRequest("cursor: must be the unchanged `next` of the previous page") from None
    found: list[Any] = list(rows.defer(*LARGE).annotate(short=_SHORT).order_by("-pk")[: limit + 1])
    for job in found:
        job.arguments_short = job.short
    return found[:limit], str(found[limit - 1].pk) if len(found) > limit else None


def capped_count(rows: QuerySet[Job], most: int = COUNTED) -> tuple[int, bool]:
    """The number of rows, at most `most`, and whether there are more."""
    # With an order, PostgreSQL reads the index that has it. Without one, it takes matching rows to lie everywhere in
    # the table, and reads all ended rows before it finds those that wait.
    found = rows.order_by("-pk")[: most + 1].count()
    return min(found, most), found > most


def counts_by_state(rows: JobQuerySet, most: int = COUNTED) -> dict[str, tuple[int, bool]]:
    """`capped_count` of these rows in each state that is shown, by one statement."""
    connection = connections[schema.alias()]
    parts, values = [], []
    for place, state in enumerate(SHOWN_STATES):
        some = rows.shown_as(state).order_by("-pk").values("pk")[: most + 1]
        try:
            part, more = some.query.get_compiler(connection=connection).as_sql()
        except EmptyResultSet:
            continue
        parts.append(f"select {place}, count(*) from ({part}) part{place}")
        values += more
    counts = dict.fromkeys(range(len(SHOWN_STATES)), 0)
    if parts:
        with connection.cursor() as cursor:
            cursor.execute(" union all ".join(parts), values)
            counts |= dict(cursor.fetchall())
    return {state: (min(counts[place], most), counts[place] > most) for place, state in enumerate(SHOWN_STATES)}


def key_at(moment: datetime) -> uuid.UUID:
    """The smallest possible id of a job created at this time.

    >>> key_at(datetime(2026, 1, 1, tzinfo=UTC))
    UUID('019b76da-a800-0000-0000-000000000000')
    """
    return uuid.UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)

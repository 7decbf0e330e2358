"""The errors of jobs that ended without success, grouped by command, kind and first line.

>>> first_line("KeyError: 'order 17 of 2026'\\nline 2")
"KeyError: 'order # of #'"
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Left

from snakepit.pools.jobs.privacy import kind_of
from snakepit.pools.models.job import JobQuerySet
from snakepit.pools.models.states import UNSUCCESSFUL

# Of a stored error, without the traceback, which may have kilobytes.
PARTS = (
    KeyTextTransform("code", "error"),
    KeyTextTransform("type", KeyTextTransform("details", "error")),
    Left(KeyTextTransform("message", "error"), 1000),
)
COVERED = 2000  # jobs, the newest that match
LONGEST = 200  # characters of a first line
NUMBER = re.compile(r"\b(?:[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\d+)\b")  # differs between errors of one cause


@dataclass(slots=True)
class ErrorGroup:
    """`newest`: the newest job of the group. `message`: the first line, numbers as #."""

    pool: str
    command: str
    code: str
    kind: str  # the class of the exception
    message: str
    count: int
    newest: UUID
    at: datetime


def groups(rows: JobQuerySet, sees: Callable[[str], bool]) -> list[ErrorGroup]:
    """The groups, the largest first. `sees`: whether the viewer may see the payload of a job of this owner."""
    names = ("pk", "pool", "command", "owner", "created_at")
    failed = rows.filter(state__in=UNSUCCESSFUL).order_by("-pk").values_list(*names, *PARTS)
    found: dict[tuple[str, ...], ErrorGroup] = {}
    for job_id, pool, command, owner, at, code, kind, message in failed[:COVERED]:
        if code is None:
            continue
        if sees(owner):
            key = (pool, command, code, kind or "", first_line(message or ""))
        else:
            key = (pool, command, *_hidden(code, kind or ""))
        if key in found:
            found[key].count += 1
        else:
            found[key] = ErrorGroup(*key, count=1, newest=job_id, at=at)
    return sorted(found.values(), key=lambda group: -group.count)


def _hidden(code: str, kind: str) -> tuple[str, str, str]:
    """Code, kind and message of an error whose payload the viewer may not see."""
    shown = kind_of({"code": code, "details": {"type": kind}}) or {}
    return code, "", first_line(shown["message"])


def first_line(message: str) -> str:
    """The first line, with # in place of numbers and ids, so that errors of one cause are one group."""
    return NUMBER.sub("#", message.partition("\n")[0])[:LONGEST]

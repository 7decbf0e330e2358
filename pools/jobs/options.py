"""Check the options of a submission. Pure, apart from the caller's limits and the settings."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.utils import timezone

from snakepit.pools import conf
from snakepit.pools.broker.caller import current
from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.models.job import RETRIES, join_tags
from snakepit.pools.models.moments import utc_now

TAG = re.compile(r"[a-z0-9][a-z0-9_.:-]{0,49}")
MOST_TAGS = 16


def columns(
    *,
    priority: int = 0,
    run_after: datetime | None = None,
    deadline: datetime | None = None,
    timeout: float | None = None,
    max_attempts: int | None = None,
    backoff: float | None = None,
    retry: str = "lost",
    tags: Sequence[str] = (),
    owner: Any = None,
    retention: int | None = None,
) -> dict[str, Any]:
    """The columns of a job that its options decide. BadRequest names an option that is wrong."""
    settings = conf.current()
    checked: dict[str, Any] = {
        "priority": _whole("priority", priority, -100, 100),
        "run_after": _moment("run_after", run_after),
        "deadline": _moment("deadline", deadline),
        "timeout": None if timeout is None else _seconds("timeout", timeout, 0.001, 31 * 86_400),
        "max_attempts": _whole("max_attempts", max_attempts or settings.jobs_max_attempts, 1, 100),
        "backoff": _seconds("backoff", settings.jobs_backoff if backoff is None else backoff, 0, 3600),
        "retry": _one_of("retry", retry, RETRIES),
        "tags": _tags(tags),
        "owner": _text("owner", owner if isinstance(owner, str) else owner.get_username() if owner else "", 150),
        "retention": _whole("retention", settings.jobs_retention if retention is None else retention, 0, 10**9),
    }
    _check_horizon(run_after, retention)
    return checked


def key(value: str | None) -> str:
    """A checked idempotency key; empty: none."""
    return _text("idempotency_key", value or "", 200)


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

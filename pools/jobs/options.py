"""The options of a submission, and their checks. Pure, apart from the caller's limits and the settings."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

from django.utils import timezone

from snakepit.pools import conf
from snakepit.pools.broker.caller import current
from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.jobs.shown_value import shown
from snakepit.pools.jobs.unique import Unique
from snakepit.pools.models.job import RETRIES, join_tags
from snakepit.pools.models.moments import find_problem, utc_now

TAG = re.compile(r"[a-z0-9][a-z0-9_.:-]{0,49}")
MOST_TAGS = 16
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """The options that `submit` and `submit_many` share. A new option of jobs needs a field and a line of `columns`."""

    priority: int = 0
    run_after: datetime | None = None
    deadline: datetime | None = None
    expires: datetime | None = None
    timeout: float | None = None
    max_attempts: int | None = None
    backoff: float | None = None
    retry: str = "lost"
    tags: Sequence[str] = ()
    owner: Any = None
    retention: int | None = None
    unique: Unique | bool | None = None
    depends_on: Sequence[Any] = ()
    on_failure: str = "cancel"

    @classmethod
    def among(cls, given: Mapping[str, Any]) -> tuple[JobOptions, dict[str, Any]]:
        """Returns (the options among the keyword arguments of a call, the other keyword arguments).

        >>> JobOptions.among({"priority": 5, "digit": 7})[1]
        {'digit': 7}
        """
        names = {field.name for field in fields(cls)}
        mine = {name: value for name, value in given.items() if name in names}
        return cls(**mine), {name: value for name, value in given.items() if name not in names}

    def columns(self) -> dict[str, Any]:
        """The columns of a job that its options decide. BadRequest names an option that is wrong."""
        settings = conf.current()
        checked: dict[str, Any] = {
            "priority": _whole("priority", self.priority, -100, 100),
            "run_after": _moment("run_after", self.run_after),
            "deadline": _moment("deadline", self.deadline),
            "expires": _moment("expires", self.expires),
            "timeout": None if self.timeout is None else _seconds("timeout", self.timeout, 0.001, 31 * 86_400),
            "max_attempts": _whole("max_attempts", _or(self.max_attempts, settings.jobs_max_attempts), 1, 100),
            "backoff": _seconds("backoff", _or(self.backoff, settings.jobs_backoff), 0, 3600),
            "retry": _one_of("retry", self.retry, RETRIES),
            "tags": _tags(self.tags),
            "owner": _text("owner", _name_of(self.owner), 150),
            "retention": _whole("retention", _or(self.retention, settings.jobs_retention), 0, 10**9),
        }
        for name in ("expires", "deadline"):
            if self.run_after and checked[name] and checked[name] <= self.run_after:
                raise BadRequest(f"{name}: is not after run_after, so the job could never run; set a later time")
        _check_horizon(self.run_after, self.retention)
        return checked


def show_options(function: Function) -> Function:
    """Give a function that takes `**given` a signature with the names of the options, for `help` and the reference."""
    shown = inspect.signature(function)
    own = [one for one in shown.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    rest = [
        one for one in shown.parameters.values() if one.kind is inspect.Parameter.VAR_KEYWORD and one.name == "more"
    ]
    options = [one for name, one in inspect.signature(JobOptions).parameters.items() if name not in shown.parameters]
    function.__signature__ = shown.replace(parameters=[*own, *options, *rest])  # type: ignore[attr-defined]
    return function


def check_key(value: str | None) -> str:
    """A checked idempotency key; empty: none."""
    return _text("idempotency_key", "" if value is None else value, 200)


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


def _name_of(owner: Any) -> str:
    """The name of a user; empty for nothing and for a visitor who is not signed in."""
    if owner is None or isinstance(owner, str):
        return owner or ""
    if not callable(name := getattr(owner, "get_username", None)):
        raise BadRequest(f"owner: {shown(owner)} is neither a user nor the name of one")
    return str(name() or "")


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadRequest(f"{name}: {shown(value)} is not a whole number from {low} to {high}")
    return value


def _seconds(name: str, value: Any, low: float, high: float) -> float:
    whole = isinstance(value, int) and not isinstance(value, bool)  # perhaps larger than a float can be
    if not whole and not (isinstance(value, float) and math.isfinite(value)):
        raise BadRequest(f"{name}: {shown(value)} is not a number of seconds")
    if not low <= value <= high:
        raise BadRequest(f"{name}: {shown(value)} is outside {low} to {high} seconds")
    return float(value)


def _moment(name: str, value: Any) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime) and timezone.is_naive(value):
        raise BadRequest(f"{name}: {value.isoformat()} has no time zone; write it as 2026-01-31T12:00:00Z")
    if not isinstance(value, datetime):
        raise BadRequest(f"{name}: {shown(value)} is not a datetime with a time zone, such as 2026-01-31T12:00:00Z")
    if problem := find_problem(value):
        raise BadRequest(f"{name}: {problem}")
    return value


def _one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise BadRequest(f"{name}: {shown(value)} is not one of {', '.join(allowed)}")
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
            raise BadRequest(f"tags: {shown(tag)} must have 1 to 50 characters: lower-case letters, digits and _.:-")
    return join_tags(list(dict.fromkeys(tags)))

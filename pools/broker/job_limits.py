"""The limits of a pool's jobs: how many run together, and how many start within a minute, for each key.

A key is the pool, an owner, or the value of one argument.

>>> parse([{"by": "owner", "running": 4}])
(JobLimit(by='owner', running=4, per_minute=None),)
>>> find_problem([{"by": "owner"}])
"entry 0: has no limit; set 'running', 'per_minute' or both"
>>> key_of([{"by": "argument:tenant", "running": 1}], {"tenant": 7})[:8]
'2f8ed1ca'
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ARGUMENT = "argument:"
MOST = 100_000  # of a limit
LEFT = ("running", "per_minute")


@dataclass(frozen=True, slots=True)
class JobLimit:
    """One limit; each of its keys may have this many jobs."""

    by: str  # pool, owner, or argument:<name>
    running: int | None = None
    per_minute: int | None = None


def parse(limits: Iterable[Mapping[str, Any]]) -> tuple[JobLimit, ...]:
    """The limits of a valid definition."""
    return tuple(JobLimit(**one) for one in limits)


def key_of(limits: Iterable[Mapping[str, Any]], arguments: Mapping[str, Any]) -> str:
    """The key of a job for the limit by an argument; empty if the pool has no such limit.

    Jobs without the argument share one key, so that leaving it out evades no limit.
    """
    for one in limits:
        if one["by"].startswith(ARGUMENT):
            name = one["by"].removeprefix(ARGUMENT)
            text = json.dumps([name, *([arguments[name]] if name in arguments else [])], sort_keys=True)
            return hashlib.sha256(text.encode()).hexdigest()[:40]
    return ""


def find_problem(limits: Any) -> str | None:
    """What is wrong with the `job_limits` of a definition, with the number of the entry, from 0."""
    if not isinstance(limits, Sequence) or isinstance(limits, str | bytes):
        return 'must be a list of limits such as {"by": "owner", "running": 4}'
    for index, one in enumerate(limits):
        if problem := _wrong(one):
            return f"entry {index}: {problem}"
    kinds = [ARGUMENT if one["by"].startswith(ARGUMENT) else one["by"] for one in limits]
    for kind in kinds:
        if kinds.count(kind) > 1:
            what = "by an argument" if kind == ARGUMENT else f"by {kind}"
            return f"has {kinds.count(kind)} limits {what}; a pool has one, with 'running' and 'per_minute' together"
    return None


def _wrong(one: Any) -> str | None:
    if not isinstance(one, Mapping):
        return 'must be an object such as {"by": "owner", "running": 4}'
    if unknown := [name for name in one if name not in ("by", *LEFT)]:
        return f"{unknown[0]!r} is not a key of a limit; the keys are by, running, per_minute"
    by = one.get("by")
    named = by.removeprefix(ARGUMENT).isidentifier() if isinstance(by, str) and by.startswith(ARGUMENT) else False
    if by not in ("pool", "owner") and not named:
        return f"by: {by!r} is not pool, owner, or argument: with the name of an argument, such as argument:tenant"
    for name in LEFT:
        value = one.get(name)
        fits = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST
        if value is not None and not fits:
            return f"{name}: {value!r} is not a whole number from 1 to {MOST}"
    if all(one.get(name) is None for name in LEFT):
        return "has no limit; set 'running', 'per_minute' or both"
    return None

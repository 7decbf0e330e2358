"""Unique jobs: a submission answers with the job that exists, instead of adding one that is the same.

The key of a job is a digest of pool, command, owner and the arguments that count. Two submissions of one key cannot
pass each other: they hold a lock of the database from the look-up until their transaction ends.

PostgreSQL   advisory locks: one submission locks its key, a bulk submission all keys of the command
SQLite       the lock of the only writer
others       the row of the pool

>>> one = Unique(by=["customer"])
>>> one.key("mail", "send", "", {"customer": 7, "text": "a"}) == one.key("mail", "send", "", {"customer": 7})
True
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connections
from django.db.models import Q
from django.db.models.functions import Now

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.jobs.shown_value import shown
from snakepit.pools.models import Job, Pool, schema
from snakepit.pools.models.states import ACTIVE, SCHEDULED, SHOWN_STATES

ALL = "arguments"
WAITING_OR_RUNNING = (SCHEDULED, *ACTIVE)
LONGEST = 10**9  # seconds of a period
MOST_NAMES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Unique:
    """Which jobs count as the same.

    by      "arguments": all arguments are equal; or names: these arguments are; an empty list: the command is
    period  seconds: jobs that were created earlier do not count; None: of any age
    states  the states in which a job counts
    """

    by: str | Sequence[str] = ALL
    period: float | None = None
    states: Sequence[str] = WAITING_OR_RUNNING

    def __post_init__(self) -> None:
        names = self.by
        if not isinstance(names, str | Sequence) or not all(isinstance(one, str) for one in names):
            raise BadRequest(f"unique: by: {shown(names)} is neither 'arguments' nor a list of names of arguments")
        if len(names) > MOST_NAMES and not isinstance(names, str):
            raise BadRequest(f"unique: by: must be at most {MOST_NAMES} names")
        period = self.period
        if period is not None and not (
            isinstance(period, int | float) and not isinstance(period, bool) and 0 < period <= LONGEST
        ):
            raise BadRequest(f"unique: period: {shown(period)} is not a number of seconds up to {LONGEST}")
        states = self.states
        right = isinstance(states, Collection) and not isinstance(states, str | Mapping) and bool(states)
        if not right or not all(one in SHOWN_STATES for one in states):
            raise BadRequest(f"unique: states: {shown(states)} must be a list of {', '.join(SHOWN_STATES)}")

    def key(self, pool: str, command: str, owner: str, arguments: Mapping[str, Any]) -> str:
        """The key of a job with these stored arguments."""
        names = sorted(arguments) if self.by == ALL else [self.by] if isinstance(self.by, str) else sorted({*self.by})
        own = {name: arguments[name] for name in names if name in arguments}
        text = json.dumps([pool, command, owner, own], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:40]

    def existing(self, keys: Iterable[str]) -> dict[str, Job]:
        """The newest job of each key that counts. Call it under the lock."""
        counted = Q(pk__in=())
        for state in self.states:
            counted |= Q(pk__in=Job.objects.filter(unique_key__in=list(keys)).shown_as(state).values("pk"))
        rows = Job.objects.filter(counted)
        if self.period is not None:
            rows = rows.filter(created_at__gt=Now() - timedelta(seconds=self.period))
        found = {job.unique_key: job for job in rows.order_by("pk")}
        for job in found.values():
            job.existed = True
        return found


def names_of(only: Unique | None) -> frozenset[str]:
    """The arguments that are named."""
    if only is None or only.by == ALL:
        return frozenset()
    return frozenset({only.by} if isinstance(only.by, str) else only.by)


def of(given: Any) -> Unique | None:
    """The option `unique` of a submission: an Unique, True for its defaults, or nothing."""
    if given is None or given is False:
        return None
    if given is True:
        return Unique()
    if not isinstance(given, Unique):
        raise BadRequest(f"unique: {shown(given)} is not a snakepit.pools.jobs.Unique, or True")
    return given


def from_parts(given: dict[str, Any]) -> Unique | None:
    """Take `unique`, `unique_by`, `unique_period` and `unique_states` out of the options of a request or shell."""
    wanted = bool(given.pop("unique", False))
    parts = {name: given.pop(f"unique_{name}", None) for name in ("by", "period", "states")}
    chosen = {name: value for name, value in parts.items() if value is not None}
    return Unique(**chosen) if wanted or chosen else None


def lock(pool: str, command: str, key: str = "") -> None:
    """Hold the lock of a key, or of all keys of the command, until the transaction ends."""
    connection = connections[schema.alias()]
    if connection.vendor == "postgresql":
        shared = "_shared" if key else ""
        with connection.cursor() as cursor:
            text = f"snakepit unique {pool} {command}"
            cursor.execute(f"select pg_advisory_xact_lock{shared}(hashtextextended(%s, 0))", [text])
            if key:
                cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 1))", [key])
    elif connection.vendor == "sqlite":
        Job.objects.filter(pk=uuid.UUID(int=0)).update(priority=0)  # no row, but this transaction is the writer now
    else:
        list(Pool.objects.select_for_update().filter(name=pool).values_list("pk"))

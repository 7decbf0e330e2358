"""Make jobs of the rows that a claim returns. Rows have the columns that an attempt needs; others are read when used.

A job has some fifty columns, ten of them moments. To convert them all takes longer than the claim itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from django.db import connections

from snakepit.pools.jobs.signals import job_progressed, job_started
from snakepit.pools.models import Job, schema
from snakepit.pools.models.instances import maker

ALL = tuple(field.attname for field in Job._meta.concrete_fields)
# What runs an attempt, decides its end, and what follows the end. A receiver of a signal may use every column.
NEEDED = frozenset({
    "id", "pool", "command", "arguments", "state", "priority", "deadline", "expires", "timeout", "retry",
    "max_attempts", "backoff", "attempts", "failures", "deaths", "snoozes", "begun", "limit_key", "owner", "key",
    "tags", "hooked", "retention",
})  # fmt: skip
USED = tuple(name for name in ALL if name in NEEDED)

Convert = Callable[[Any, Any, Any], Any]  # as Django's: the value, the expression and the connection


def wanted() -> tuple[str, ...]:
    """The columns that a claim returns now."""
    return ALL if job_started.receivers or job_progressed.receivers else USED


def jobs_of(rows: Iterable[Sequence[Any]], names: tuple[str, ...]) -> list[Job]:
    """The jobs of rows with these columns, in the order of the model."""
    using = schema.alias()
    connection = connections[using]
    converters = _converters(using, connection.vendor, names)
    make = maker(Job, {}, stored_in=using)
    found = []
    for row in rows:
        values = dict(zip(names, row, strict=True))
        for name, expression, steps in converters:
            if (value := values[name]) is not None:  # each step leaves None as it is
                for step in steps:
                    value = step(value, expression, connection)
                values[name] = value
        found.append(make(values))
    return found


@lru_cache(maxsize=8)
def _converters(using: str, vendor: str, names: tuple[str, ...]) -> list[tuple[str, Any, list[Convert]]]:
    """By name, what makes the value of a field of the column's value."""
    fields = [field for field in Job._meta.concrete_fields if field.attname in names]
    compiler = Job.objects.all().query.get_compiler(using)
    found = compiler.get_converters([field.get_col(Job._meta.db_table) for field in fields])
    return [(fields[at].attname, expression, list(steps)) for at, (steps, expression) in found.items()]

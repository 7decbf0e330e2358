"""The different values of an indexed column of jobs, by one step of the index for each: a DISTINCT reads all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connections

from snakepit.pools.models import Job, schema


def values_of(column: str, condition: str, values: Sequence[Any], most: int) -> list[str]:
    """The first values in their order, `most` at most, of the rows of an SQL condition with these values."""
    table = Job._meta.db_table
    statement = (
        f"with recursive found(one) as (select min({column}) from {table} where {condition} union all "
        f"select (select min({column}) from {table} where {condition} and {column} > found.one) from found "
        f"where found.one is not null) select one from found where one is not null limit {most}"
    )
    with connections[schema.alias()].cursor() as cursor:
        cursor.execute(statement, [*values, *values])
        return [row[0] for row in cursor.fetchall()]

"""Rows that cannot be shown: a list names them beside its valid rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ninja import Field, Schema
from pydantic import ValidationError


class BadRow(Schema):
    """A row that cannot be shown. The list still has the other rows."""

    row: str = Field(description="The row's name, or its number in the database.")
    problem: str = Field(description="The fields that are wrong, and how.")


class Listed(Schema):
    """What every list has beside its rows."""

    bad: list[BadRow] = Field(default=[], description="Rows that cannot be shown.")


def shown(rows: Iterable[Any], show: Callable[[Any], Schema]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows as JSON, and those that cannot be shown, each with the reason."""
    good, bad = [], []
    for row in rows:
        try:
            good.append(show(row).model_dump(mode="json"))
        except ValidationError as error:
            bad.append(BadRow(row=str(getattr(row, "name", row.pk)), problem=problem_of(error)).model_dump())
    return good, bad


def problem_of(error: ValidationError) -> str:
    """The wrong fields and the reasons, without the stored values."""
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())

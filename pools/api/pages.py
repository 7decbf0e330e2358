"""Keyset pages, newest first: the cursor is the last id of the previous page, so every page is equally fast.

One bad row does not take its page away: `shown` names it beside the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.db.models import QuerySet
from ninja import Schema
from pydantic import ValidationError

from snakepit.pools import conf
from snakepit.pools.api.schemas import BadRow
from snakepit.pools.broker.errors import BadRequest

LARGEST_ID = 2**63 - 1


def page(rows: QuerySet[Any], limit: int | None, cursor: str | None) -> tuple[list[Any], str | None]:
    """One page, and the cursor of the next page (None: last page)."""
    most = conf.current().page_limit
    if limit is None:
        limit = min(50, most)
    if not 1 <= limit <= most:
        raise BadRequest(f"limit: {limit} is outside 1 to {most}", details={"fields": {"limit": most}})
    if cursor is not None:
        rows = rows.filter(pk__lt=_read(cursor))
    found = list(rows.order_by("-pk")[: limit + 1])
    return found[:limit], str(found[limit - 1].pk) if len(found) > limit else None


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


def _read(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 20 and int(cursor) <= LARGEST_ID):
        message = "cursor: must be the unchanged `next` of the previous page"
        raise BadRequest(message, details={"fields": {"cursor": cursor}})
    return int(cursor)

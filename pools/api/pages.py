"""Keyset pages, newest first: the cursor is the last id of the previous page, so every page is equally fast."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from snakepit.pools import conf
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


def _read(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 20 and int(cursor) <= LARGEST_ID):
        message = "cursor: must be the unchanged `next` of the previous page"
        raise BadRequest(message, details={"fields": {"cursor": cursor}})
    return int(cursor)

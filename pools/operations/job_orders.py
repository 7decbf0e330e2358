"""Orders for many jobs: one audit row with the filter, the count and the outcome."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from snakepit.pools.jobs import bulk_actions
from snakepit.pools.models.job import JobQuerySet
from snakepit.pools.operations.orders import Order, recorded

DONE = {"cancel": "cancelled, or asked to stop", "retry": "queued again", "delete": "deleted"}


def act(
    action: str,
    rows: JobQuerySet,
    filters: Mapping[str, Any],
    order: Order,
    *,
    upto: uuid.UUID | None = None,
    seconds: float | None = None,
) -> bulk_actions.Result:
    """Cancel, retry or delete the rows, which the filters and the rights of the actor have selected."""
    given = {name: str(value) for name, value in filters.items() if value}
    with recorded(order, f"{action}_jobs", given.get("pool", "")) as record:
        record.data = {"filter": given}
        found = bulk_actions.act(action, rows, upto, seconds)
        record.data = {"filter": given, "jobs": found.done, "left": found.left}
        record.message = f"{found.done} jobs {DONE[action]}" + ("; not all yet" if found.left else "")
        return found

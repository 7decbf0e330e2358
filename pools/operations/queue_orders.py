"""Operator actions on the jobs of a pool: pause and resume. Each is audited."""

from __future__ import annotations

from snakepit.pools.jobs import queues
from snakepit.pools.operations.orders import Order, recorded


def pause_queue(pool: str, order: Order) -> bool:
    """Let the jobs of a pool wait. Its calls go on; jobs that run end."""
    with recorded(order, "pause_queue", pool) as record:
        changed = queues.pause_queue(pool)
        record.message = "" if changed else "was paused already"
        return changed


def resume_queue(pool: str, order: Order) -> bool:
    """Run the jobs of a pool again."""
    with recorded(order, "resume_queue", pool) as record:
        changed = queues.resume_queue(pool)
        record.message = "" if changed else "was not paused"
        return changed

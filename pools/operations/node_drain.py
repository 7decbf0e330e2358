"""Drain and resume a node for maintenance.

    order ─▶ Audit row ─▶ broker ─▶ event ... standing(): the calls that remain

The broker keeps the drain in memory only, because rows of pools belong to all nodes. A restarted broker takes calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from snakepit.pools.client.drain_status import DrainStatus, check, standing
from snakepit.pools.operations.orders import Order, recorded


class Drains(Protocol):
    """The part of the client that drains a node."""

    def status(self, pool: str = "") -> dict[str, Any]: ...

    def drain(self, actor: str = "", reason: str = "") -> dict[str, Any]: ...

    def resume(self, actor: str = "", reason: str = "") -> dict[str, Any]: ...


def drain(broker: Drains, node: str, order: Order) -> DrainStatus:
    """Refuse new calls on the node. Its calls finish; its workers stay warm. Raises NodeUnknown."""
    return _order(broker, node, "drain", order)


def resume(broker: Drains, node: str, order: Order) -> DrainStatus:
    """Take calls again. Raises NodeUnknown."""
    return _order(broker, node, "resume", order)


def _order(broker: Drains, node: str, action: str, order: Order) -> DrainStatus:
    with recorded(order, action, target=node) as record:
        check(broker.status()["node"]["name"], node)
        given: Callable[..., Any] = getattr(broker, action)
        given(actor=order.actor, reason=order.reason)
        now = standing(broker.status())
        record.message = f"{now.running} running and {now.waiting} waiting calls" if action == "drain" else ""
        return now

"""Drain and resume a node for maintenance.

    order ─▶ Audit row ─▶ broker of the node ─▶ event ... drain_status(): the calls that remain

The broker keeps the drain in memory only, because rows of pools belong to all nodes. A restarted broker takes calls.
"""

from __future__ import annotations

from typing import Protocol

from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.client.drain_status import DrainStatus, check_node, drain_status
from snakepit.pools.operations.at_node import at_node
from snakepit.pools.operations.orders import Order, recorded

ANSWER = 1.5  # seconds that the broker may take to show the node, before it gets the order


class Drains(Protocol):
    """The part of the client that drains a node."""

    def status(self, pool: str = "", timeout: float = ...) -> BrokerStatus: ...

    def drain(self, actor: str = "", reason: str = "") -> None: ...

    def resume(self, actor: str = "", reason: str = "") -> None: ...


def drain(broker: Drains, node: str, order: Order) -> DrainStatus:
    """Refuse new calls on the node. Its calls finish; its workers stay warm. Raises NodeUnknown."""
    return _order(broker, node, "drain", order)


def resume(broker: Drains, node: str, order: Order) -> DrainStatus:
    """Take calls again. Raises NodeUnknown."""
    return _order(broker, node, "resume", order)


def preview(broker: Drains, node: str, timeout: float = ANSWER) -> DrainStatus:
    """What a drain of the node would find. Raises NodeUnknown."""
    now = drain_status(at_node(broker, node).status(timeout=timeout))
    check_node(now.node, node)
    return now


def _order(broker: Drains, node: str, action: str, order: Order) -> DrainStatus:
    with recorded(order, action, target=node) as record:
        broker = at_node(broker, node)
        check_node(broker.status(timeout=ANSWER).node.name, node)
        (broker.drain if action == "drain" else broker.resume)(actor=order.actor, reason=order.reason)
        now = drain_status(broker.status(timeout=ANSWER))
        record.message = f"{now.running} running and {now.waiting} waiting calls" if action == "drain" else ""
        return now

"""Find the broker of a node by its row: for orders to one node by name, and for what every node has to receive."""

from __future__ import annotations

from typing import Any, TypeVar

from snakepit.pools.client.client import Client
from snakepit.pools.client.routing.client import RoutedClient
from snakepit.pools.client.routing.discovery import NodeRow, nodes_of
from snakepit.pools.jobs.leases import db_unit
from snakepit.pools.models import Node

Broker = TypeVar("Broker")
MOST_NODES = 200


def at_node(broker: Broker, node: str) -> Broker | Client:
    """The client of a node's broker. Without a row that this process can use, it is the given one, which answers then.

    A client that was made for one address stays at that address.
    """
    return others(broker, name=node).get(node, broker)


def others(broker: Any, **given: Any) -> dict[str, Client]:
    """The clients of the other nodes that did not shut down and that this process can reach, by name."""
    if not isinstance(broker, RoutedClient):
        return {}
    with db_unit():
        rows = list(Node.objects.filter(stopped=False, **given).order_by("name")[:MOST_NODES])
    found = [NodeRow(one.name, one.address, one.host, tuple(map(str, one.advertised))) for one in rows]
    return {one.name: Client(one.target) for one in nodes_of(found, broker.target) if not one.own}

"""Ask all nodes at once, each for a bounded time. A node that does not answer has its reason in the result.

Node rows ─▶ known() ─▶ ask() ─▶ every broker, together, ANSWER seconds at most ─▶ merge()
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from snakepit.pools.broker.errors import BrokerError, BrokerUnreachable, NodeUnknown
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.client.client import Client
from snakepit.pools.client.cluster_status import NodeAnswer
from snakepit.pools.client.drain_status import check_node
from snakepit.pools.client.routing.client import RoutedClient
from snakepit.pools.client.routing.discovery import FORGOTTEN, MOST_NODES, THIS_HOST, NodeRow, reach
from snakepit.pools.jobs.leases import db_unit
from snakepit.pools.models import Node
from snakepit.pools.models.moments import utc_now

ANSWER = 0.8  # seconds that a node may take


@dataclass(frozen=True, slots=True)
class AskedNode:
    """A node, and the client of its broker. Without a client, `reason` says why it cannot be reached."""

    name: str
    client: Client | None
    reason: str = ""
    own: bool = False  # the node of this host
    named: bool = True  # its broker must answer with this name


def known(broker: Any) -> tuple[AskedNode, ...]:
    """The nodes of the project that did not shut down, the one of this host first. Reads the database.

    A client that was made for one address has the node at that address alone.
    """
    if not isinstance(broker, RoutedClient):
        return (AskedNode("", broker, own=True, named=False),)
    with db_unit():
        rows = Node.objects.filter(stopped=False, seen_at__gte=utc_now() - FORGOTTEN).order_by("name")
        found = list(rows.values_list("name", "address", "host", "advertised")[:MOST_NODES])
    given = [NodeRow(name, path, host, tuple(map(str, more))) for name, path, host, more in found]
    nodes, away = reach(given, broker.target)
    asked = [
        AskedNode(one.name, None, f"no broker listens at {one.target}", one.own, one.named)
        if one.is_absent
        else AskedNode(one.name, broker if one.own else Client(one.target), own=one.own, named=one.named)
        for one in nodes
        if one.named or not one.is_absent or len(nodes) + len(away) == 1  # a host without a broker is no node
    ]
    return (*asked, *(AskedNode(name, None, reason) for name, reason in away.items()))


def named(broker: Any, name: str) -> AskedNode:
    """The node with this name. Raises NodeUnknown, or BrokerUnreachable if this process cannot reach it."""
    nodes = known(broker)
    found = next((one for one in nodes if one.name == name), None)
    if found is None:
        found = next((one for one in nodes if _is_named(one, name)), None)
    if found is None:
        names = ", ".join(one.name for one in nodes if one.named) or "only that of this host"
        raise NodeUnknown(f"No node is named {name!r}; known: {names}.", details={"node": name})
    if found.client is None:
        raise BrokerUnreachable(f"node {name}: {found.reason}", outcome="not_started", details={"node": name})
    return found


def _is_named(node: AskedNode, name: str) -> bool:
    """Whether the broker of this host, which has no row yet, has this name."""
    return not node.named and node.client is not None and node.client.status(timeout=ANSWER).node.name == name


def status_of(broker: Any, name: str, pool: str = "", timeout: float = ANSWER) -> BrokerStatus:
    """The status of one node by its name. Raises NodeUnknown, or the error of a broker that does not answer."""
    client = named(broker, name).client
    assert client is not None
    found = client.status(pool, timeout=timeout)
    check_node(found.node.name, name)
    return found


def plain(error: BrokerError) -> str:
    return error.message


def ask(nodes: Sequence[AskedNode], words: Callable[[BrokerError], str] = plain) -> list[NodeAnswer]:
    """Ask all nodes together; returns an answer for each. `words`: the reason that an error becomes."""
    return begin(nodes, words)()


def begin(nodes: Sequence[AskedNode], words: Callable[[BrokerError], str] = plain) -> Callable[[], list[NodeAnswer]]:
    """As `ask`, but the returned function waits for the answers."""
    answers: list[NodeAnswer] = []
    # In a thread of its own: the thread of the caller may have an event loop that runs.
    asking = threading.Thread(
        target=lambda: answers.extend(asyncio.run(aask(nodes, words))), name="snakepit-ask-nodes", daemon=True
    )
    asking.start()

    def wait() -> list[NodeAnswer]:
        asking.join()
        return answers

    return wait


async def aask(nodes: Iterable[AskedNode], words: Callable[[BrokerError], str] = plain) -> list[NodeAnswer]:
    """As `ask`, for an event loop."""
    return list(await asyncio.gather(*(_ask(one, words) for one in nodes)))


async def _ask(node: AskedNode, words: Callable[[BrokerError], str]) -> NodeAnswer:
    name = node.name or THIS_HOST
    if node.client is None:
        return NodeAnswer(name, None, node.reason, node.own)
    try:
        found = await node.client.ameasured(timeout=ANSWER)
    except BrokerError as error:
        return NodeAnswer(name, None, words(error), node.own)
    here = found.node.name
    if node.named and here != name:
        return NodeAnswer(name, None, f"the broker of node {here} answers at its address", node.own)
    return NodeAnswer(here, found, own=node.own)

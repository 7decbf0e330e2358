"""Ask all nodes together, each for a bounded time. A node that does not answer has its reason in the result.

Node rows ─▶ known() ─▶ ask() ─▶ every broker, together, ANSWER seconds at most ─▶ merge()
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from snakepit.pools.broker.errors import BrokerError, BrokerUnreachable, NodeUnknown
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.client.client import Client
from snakepit.pools.client.cluster_status import NodeAnswer
from snakepit.pools.client.drain_status import check_node
from snakepit.pools.client.routing.client import RoutedClient
from snakepit.pools.client.routing.discovery import MAX_SILENCE, MOST_NODES, THIS_HOST, NodeRow, reach
from snakepit.pools.jobs.leases import db_unit
from snakepit.pools.models import Node

ANSWER = 0.8  # seconds that a node may take


@dataclass(frozen=True, slots=True)
class AskedNode:
    """A node, and the client of its broker. Without a client, `reason` has the cause."""

    name: str
    client: Client | None
    reason: str = ""
    own: bool = False  # the node of this host
    named: bool = True  # its broker must answer with this name
    seen_at: float = 0.0  # seconds since the epoch: when it last wrote its row; 0: not known


def known(broker: Any) -> tuple[AskedNode, ...]:
    """The nodes of the project that did not shut down, the one of this host first. Reads the database.

    A client that was made for one address has the node at that address alone.
    """
    if not isinstance(broker, RoutedClient):
        return (AskedNode("", broker, own=True, named=False),)
    with db_unit():
        rows = Node.objects.filter(stopped=False).seen_within(MAX_SILENCE).with_silence().order_by("name")
        found = list(rows.values_list("name", "address", "host", "advertised", "silence")[:MOST_NODES])
    given = [NodeRow(name, path, host, tuple(map(str, more))) for name, path, host, more, _ in found]
    seen = {name: time.time() - silence.total_seconds() for name, *_, silence in found}
    nodes, away = reach(given, broker.target)
    asked = [
        AskedNode(one.name, None, f"no broker listens at {one.target}", one.own, one.named)
        if one.is_absent
        else AskedNode(one.name, broker if one.own else Client(one.target), own=one.own, named=one.named)
        for one in nodes
        if one.named or not one.is_absent or len(nodes) + len(away) == 1  # a host without a broker is no node
    ]
    asked += [AskedNode(name, None, reason) for name, reason in away.items()]
    return tuple(replace(one, seen_at=seen.get(one.name, 0.0)) for one in asked)


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


Numbers = Mapping[str, int]  # of each node, the number of its last event that is known


def ask(
    nodes: Sequence[AskedNode],
    words: Callable[[BrokerError], str] = plain,
    events: Numbers | None = None,
    patience: float = ANSWER,
) -> list[NodeAnswer]:
    """Ask all nodes together; returns an answer for each. `words`: the reason that an error becomes.

    With `events`, the answers have the events of each node after its number; without a number, all that it keeps.
    `patience`: seconds that a node may take.
    """
    return begin(nodes, words, events, patience)()


def begin(
    nodes: Sequence[AskedNode],
    words: Callable[[BrokerError], str] = plain,
    events: Numbers | None = None,
    patience: float = ANSWER,
) -> Callable[[], list[NodeAnswer]]:
    """As `ask`, but the returned function waits for the answers."""
    answers: list[NodeAnswer] = []
    # In a thread of its own: the thread of the caller may have an event loop that runs.
    asking = threading.Thread(
        target=lambda: answers.extend(asyncio.run(aask(nodes, words, events, patience))),
        name="snakepit-ask-nodes",
        daemon=True,
    )
    asking.start()

    def wait() -> list[NodeAnswer]:
        asking.join()
        return answers

    return wait


async def aask(
    nodes: Iterable[AskedNode],
    words: Callable[[BrokerError], str] = plain,
    events: Numbers | None = None,
    patience: float = ANSWER,
) -> list[NodeAnswer]:
    """As `ask`, for an event loop."""
    return list(await asyncio.gather(*(_ask(one, words, events, patience) for one in nodes)))


async def _ask(
    node: AskedNode, words: Callable[[BrokerError], str], events: Numbers | None, patience: float
) -> NodeAnswer:
    away = NodeAnswer(node.name or THIS_HOST, None, node.reason, node.own, node.seen_at)
    if node.client is None:
        return away
    try:
        if events is None:
            found = await node.client.ameasured(timeout=patience)
        else:
            found = await node.client.awatch(events.get(node.name, 0), patience)
    except BrokerError as error:
        return replace(away, reason=words(error))
    here = found.node.name
    if node.named and here != away.name:
        return replace(away, reason=f"the broker of node {here} answers at its address")
    return NodeAnswer(here, found, own=node.own, seen_at=time.time())

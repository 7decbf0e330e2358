"""Orders on a pool or a worker that reach the nodes that have it, with an answer for each node.

recycle ─▶ one node by its name, or all that host the pool ─▶ one Audit row, one answer a node
plans ─▶ the same nodes, before the order
kill, dump ─▶ the node that has the worker
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import DatabaseError, InterfaceError

from snakepit.pools.broker.errors import BrokerError, WorkerUnknown
from snakepit.pools.broker.status import RecyclePlan, WorkerDump
from snakepit.pools.client.client import Client
from snakepit.pools.client.cluster_status import NodeAnswer, merge
from snakepit.pools.client.recycle_result import NodeRecycle, PoolRecycle
from snakepit.pools.operations import all_nodes, orders
from snakepit.pools.operations.all_nodes import ANSWER, AskedNode
from snakepit.pools.operations.orders import Order, recorded

logger = logging.getLogger("snakepit.operations")
AT_ONCE = 16  # nodes that get an order together
Answered = TypeVar("Answered")


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What a recycle would replace on one node."""

    node: str  # empty: the only one
    plan: RecyclePlan | None  # None: see the error
    error: str = ""


def recycle(broker: Any, pool: str, worker: str, order: Order, node: str = "", patience: float = ANSWER) -> PoolRecycle:
    """Replace a pool's workers on each node that hosts it, or on the one named; or one worker, where it is.

    `patience`: seconds that a node may take to answer whether it has the pool.

    Raises the error of the broker if no node takes the order.
    """
    if node:
        at = all_nodes.named(broker, node)
        return _single(node, orders.recycle(at.client, pool, worker, order))  # type: ignore[arg-type]
    if worker:
        client, name = at_worker(broker, worker, patience)
        return _single(name, orders.recycle(client, pool, worker, order))
    nodes = _nodes(broker)
    if len(nodes) == 1:
        return _single(nodes[0].name, orders.recycle(broker, pool, "", order))
    with recorded(order, "recycle", pool) as record:
        found = _on_all(nodes, pool, order, patience)
        if not any(not one.error for one in found):  # its own broker has the reason, such as an unknown pool
            return _single("", broker.recycle(pool, worker="", actor=order.actor, reason=order.reason))
        result = PoolRecycle(sum(one.planned for one in found), found)
        record.message = "; ".join(f"{one.node}: {one.error or f'{one.planned} to be replaced'}" for one in found)
        return result


def plans(broker: Any, pool: str, worker: str, timeout: float) -> tuple[NodePlan, ...]:
    """What the same recycle would replace now, on each node that it would reach.

    Raises the error of the broker if there is one node, or for one worker.
    """
    if worker:
        client, name = at_worker(broker, worker, timeout)
        return (NodePlan(name, client.plan(pool, worker, timeout)),)
    nodes = _nodes(broker)
    if len(nodes) == 1:
        return (NodePlan(nodes[0].name, broker.plan(pool, timeout=timeout)),)

    def work(client: Client, name: str) -> NodePlan:
        try:
            return NodePlan(name, client.plan(pool, timeout=timeout))
        except BrokerError as error:
            return NodePlan(name, None, error.message)

    done, away = _each(nodes, pool, work, timeout)
    missing = (NodePlan(one.name, None, one.reason) for one in away)
    return tuple(sorted((*done, *missing), key=lambda one: one.node))


def kill(broker: Any, pool: str, worker: str, order: Order, patience: float = ANSWER) -> None:
    """Kill a worker's process on the node that has it."""
    orders.kill(at_worker(broker, worker, patience)[0], pool, worker, order)


def dump(broker: Any, pool: str, worker: str, order: Order, patience: float = ANSWER) -> WorkerDump:
    """The stacks of a worker's threads, from the node that has it."""
    return orders.dump(at_worker(broker, worker, patience)[0], pool, worker, order)


def at_worker(broker: Any, worker: str, patience: float = ANSWER) -> tuple[Any, str]:
    """The client of the node that has a worker, and its name. If none has it, the given one, which answers then."""
    nodes = _nodes(broker)
    if len(nodes) > 1:
        answers = all_nodes.ask(nodes, patience=patience)
        name = merge(answers).node_of(worker)
        for node, answer in zip(nodes, answers, strict=True):
            if name and answer.name == name and answer.status is not None:
                return node.client, name
    return broker, nodes[0].name


def pool_of_worker(broker: Any, worker: str, timeout: float) -> str:
    """The pool of a living worker of any node; the own node is asked first. Raises WorkerUnknown, or the own error."""
    trouble: BrokerError = WorkerUnknown(f"No node has a worker {worker!r}.", details={"worker": worker})
    try:
        if found := broker.status(timeout=timeout).worker(worker):
            return str(found.pool)
    except BrokerError as error:
        trouble = error
    nodes = _nodes(broker)
    if len(nodes) > 1:
        for answer in all_nodes.ask(nodes, patience=timeout):
            if answer.status is not None and (one := answer.status.worker(worker)):
                return one.pool
    raise trouble


def _nodes(broker: Any) -> tuple[AskedNode, ...]:
    """The nodes; without the database that of this host alone, because an urgent order must not fail for that."""
    try:
        return all_nodes.known(broker)
    except (DatabaseError, InterfaceError) as error:
        logger.error("the nodes cannot be read, the order goes to the node of this host: %s", error)
        return (AskedNode("", broker, own=True, named=False),)


def _single(node: str, planned: int) -> PoolRecycle:
    return PoolRecycle(planned, (NodeRecycle(node, planned),) if node else ())


def _on_all(nodes: Sequence[AskedNode], pool: str, order: Order, patience: float) -> tuple[NodeRecycle, ...]:
    """Order it on each node that answers and has the pool. A node that does not answer may have it: it is named."""

    def work(client: Client, name: str) -> NodeRecycle:
        try:
            return NodeRecycle(name, client.recycle(pool, actor=order.actor, reason=order.reason))
        except BrokerError as error:
            return NodeRecycle(name, 0, error.message)

    done, away = _each(nodes, pool, work, patience)
    missing = (NodeRecycle(one.name, 0, one.reason) for one in away)
    return tuple(sorted((*done, *missing), key=lambda one: one.node))


def _each(
    nodes: Sequence[AskedNode], pool: str, work: Callable[[Client, str], Answered], patience: float
) -> tuple[list[Answered], list[NodeAnswer]]:
    """Do something together on each node that answers and has the pool; also return the nodes that do not answer."""
    answers = list(zip(nodes, all_nodes.ask(nodes, patience=patience), strict=True))
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="snakepit-order") as threads:
        waits = [
            threads.submit(work, node.client, answer.name)
            for node, answer in answers
            if node.client is not None and answer.status is not None and answer.status.pool(pool) is not None
        ]
        done = [one.result() for one in waits]
    return done, [answer for _, answer in answers if answer.status is None]

"""Reads from a status what a draining node still holds, and checks that an order reaches the right node."""

from __future__ import annotations

from dataclasses import dataclass

from snakepit.pools.broker.errors import NodeUnknown
from snakepit.pools.broker.status import BrokerStatus, PoolStatus


@dataclass(frozen=True, slots=True)
class PoolDrainStatus:
    """What a pool of a draining node still holds."""

    pool: str
    running: int
    waiting: int
    longest: float  # seconds that a running call may still take


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """Whether a node takes calls, and what it still holds."""

    node: str
    draining: bool
    since: float  # when an operator drained it, seconds since the epoch; 0: no operator did
    actor: str
    reason: str
    running: int
    waiting: int
    empty: bool  # no call runs and none waits
    pools: tuple[PoolDrainStatus, ...]


def drain_status(status: BrokerStatus) -> DrainStatus:
    node = status.node
    pools = tuple(_of_pool(pool, status) for pool in status.pools)
    running, waiting = sum(pool.running for pool in pools), sum(pool.waiting for pool in pools)
    return DrainStatus(
        node=node.name,
        draining=node.draining,
        since=node.drain_since,
        actor=node.drain_actor,
        reason=node.drain_reason,
        running=running,
        waiting=waiting,
        empty=running + waiting == 0,
        pools=pools,
    )


def _of_pool(pool: PoolStatus, status: BrokerStatus) -> PoolDrainStatus:
    workers = status.workers_of(pool.name)
    longest = max((call.remaining for worker in workers for call in worker.calls), default=0.0)
    return PoolDrainStatus(pool.name, sum(worker.load for worker in workers), pool.waiting, longest)


def check_node(here: str, node: str) -> None:
    """Raise NodeUnknown where an order names another node than the one whose broker answers here."""
    if here != node:
        message = (
            f"The broker that answers here is node {here}; {node} cannot be reached from here: order it on {node}."
        )
        raise NodeUnknown(message, details={"node": node, "here": here})

"""What a node holds, and whether it takes more: read out of a status. What a drain would finish, and how far one is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snakepit.pools.broker.errors import NodeUnknown


@dataclass(frozen=True, slots=True)
class Held:
    """What a pool of the node holds; a call that runs has `longest` seconds at most."""

    pool: str
    running: int
    waiting: int
    longest: float


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """`since` is 0 unless an operator drains the node; `empty` means that nothing runs and nothing waits."""

    node: str
    draining: bool
    since: float  # seconds since the epoch
    actor: str
    reason: str
    running: int
    waiting: int
    empty: bool
    pools: tuple[Held, ...]


def standing(status: Mapping[str, Any]) -> DrainStatus:
    """From the broker's status."""
    node = status["node"]
    pools = tuple(_held(pool, status["workers"]) for pool in status["pools"])
    running, waiting = sum(pool.running for pool in pools), sum(pool.waiting for pool in pools)
    return DrainStatus(
        node=node["name"],
        draining=node["draining"],
        since=node["drain_since"],
        actor=node["drain_actor"],
        reason=node["drain_reason"],
        running=running,
        waiting=waiting,
        empty=running + waiting == 0,
        pools=pools,
    )


def _held(pool: Mapping[str, Any], workers: list[Mapping[str, Any]]) -> Held:
    its = [worker for worker in workers if worker["pool"] == pool["name"]]
    left = [call["remaining"] for worker in its for call in worker["calls"]]
    running = sum(worker["load"] for worker in its)
    return Held(pool["name"], running, pool["waiting"], max(left, default=0.0))


def check(here: str, node: str) -> None:
    """Only the broker beside us can be asked: an order for another node must not drain this one."""
    if here != node:
        message = f"The broker that answers here is node {here}: order it on {node}, or with the web server of {node}."
        raise NodeUnknown(message, details={"node": node, "here": here})

"""The parameter `node` of questions: the node of this host, the named one, or all nodes."""

from __future__ import annotations

import time
from dataclasses import replace

from asgiref.sync import sync_to_async
from ninja.params import functions

from snakepit.pools.api.auth import Caller
from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.client import shared
from snakepit.pools.client.cluster_status import ClusterStatus, merge
from snakepit.pools.operations import all_nodes
from snakepit.pools.web.errors import seen_from_outside
from snakepit.pools.web.last_status import Snapshot, in_time

ALL = "all"
NODE = functions.Query("", max_length=200, description="Name of a node, or `all`; empty: the one of this host.")


async def status_of_all(identity: Caller) -> ClusterStatus:
    """The merged status of all nodes, with the pools that the caller may see. Each node has a second to answer."""
    nodes = await sync_to_async(all_nodes.known)(shared.client())
    answers = await all_nodes.aask(nodes, lambda error: seen_from_outside(error).message)
    return merge((replace(one, status=_visible(one.status, identity)) for one in answers), time.time())


async def status_of_node(node: str) -> Snapshot:
    """The status of a node by its name now. Raises NodeUnknown, or BrokerUnreachable."""
    with in_time():
        found = await sync_to_async(all_nodes.status_of)(shared.client(), clean("node", node))
    return Snapshot(found, time.time())


def _visible(status: BrokerStatus | None, identity: Caller) -> BrokerStatus | None:
    return None if status is None else visible(status, identity)


def visible(status: BrokerStatus, identity: Caller) -> BrokerStatus:
    """A status with the pools that the caller may see."""
    pools = tuple(pool for pool in status.pools if identity.may_use(pool.name))
    workers = tuple(worker for worker in status.workers if identity.may_use(worker.pool))
    return replace(status, pools=pools, workers=workers)


def clean(name: str, value: str) -> str:
    """Refuse a NUL: SQLite finds nothing for it, PostgreSQL raises an error."""
    if "\0" in value:
        raise BadRequest(f"{name}: holds the character NUL")
    return value

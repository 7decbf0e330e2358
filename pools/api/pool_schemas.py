"""The schemas of pools."""

from __future__ import annotations

from datetime import datetime

from ninja import Field, Schema

from snakepit.pools.api.bad_rows import Listed
from snakepit.pools.api.snapshot_schema import SnapshotOut
from snakepit.pools.broker.status import PoolStatus
from snakepit.pools.client.cluster_status import MergedPool, NodeSummary

ALL_NODES = (
    "With `node=all`: the nodes, also those that do not answer, with the reason and the time of their last report."
)


class PoolOut(Schema):
    """The definition of a pool (its row) and its status (`live`, from the broker; null if no broker answers)."""

    name: str
    adapter: str
    profile: str
    nodes: list[str] = Field(description="Where it lives: names or labels of nodes; empty: every node.")
    size: int
    threads: int
    enabled: bool
    paused: bool
    queue_paused: bool = Field(description="Its jobs wait; its calls go on.")
    source: str
    revision: int
    updated_at: datetime
    problem: str = Field(default="", description="Why the broker does not take this definition; empty if it does.")
    live: PoolStatus | None = None
    merged: MergedPool | None = Field(None, description="With `node=all`: its figures on all nodes that answer.")


class PoolAnswer(PoolOut):
    """One pool, with the age of `live`."""

    snapshot: SnapshotOut | None = Field(None, description="The age of `live`; null if no broker has answered yet.")
    all_nodes: list[NodeSummary] | None = Field(None, description=ALL_NODES)


class PoolList(Listed):
    pools: list[PoolOut]
    broker: str = Field(description="reachable, or the reason why not")
    snapshot: SnapshotOut | None = Field(None, description="The age of `live`; null if no broker has answered yet.")
    all_nodes: list[NodeSummary] | None = Field(None, description=ALL_NODES)


class QueueOut(Schema):
    pool: str
    queue_paused: bool = Field(description="The pool's jobs wait; its calls go on.")
    changed: bool

"""The schema of the broker's status, from the frozen values that the broker reports."""

from __future__ import annotations

from ninja import Field, Schema

from snakepit.pools.api.snapshot_schema import SnapshotOut
from snakepit.pools.broker.status import NodeStatus, PoolStatus, WorkerStatus
from snakepit.pools.client.cluster_status import MergedPool, NodeSummary, WorkerOnNode


class StatusOut(Schema):
    """The broker, its pools and their workers at one moment. Times are seconds, memory is MiB of PSS."""

    node: NodeStatus
    pools: list[PoolStatus]
    workers: list[WorkerStatus]
    snapshot: SnapshotOut


class ClusterStatusOut(Schema):
    """All nodes at one moment, with merged figures of their pools: counts add up, percentiles are of all calls."""

    nodes: list[NodeSummary] = Field(description="Also those that do not answer, with the reason.")
    pools: list[MergedPool] = Field(description="Of the nodes that answered, each with its nodes.")
    workers: list[WorkerOnNode]

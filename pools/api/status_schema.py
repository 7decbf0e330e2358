"""The schema of the broker's status, from the frozen values that the broker reports."""

from __future__ import annotations

from ninja import Schema

from snakepit.pools.api.snapshot_schema import SnapshotOut
from snakepit.pools.broker.status import NodeStatus, PoolStatus, WorkerStatus


class StatusOut(Schema):
    """The broker, its pools and their workers at one moment. Times are seconds, memory is MiB of PSS."""

    node: NodeStatus
    pools: list[PoolStatus]
    workers: list[WorkerStatus]
    snapshot: SnapshotOut

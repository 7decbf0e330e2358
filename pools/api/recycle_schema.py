"""The schemas of a recycle."""

from __future__ import annotations

from ninja import Field, Schema


class RecycleIn(Schema):
    """`worker` empty: all workers of the pool, one after another, each replaced before it leaves."""

    model_config = {"extra": "forbid"}

    worker: str = Field(default="", max_length=100, pattern=r"^[A-Za-z0-9_-]*$")
    node: str = Field(default="", max_length=200, description="Empty: every node that hosts the pool.")
    reason: str = Field(default="", max_length=200)


class NodeRecycleOut(Schema):
    node: str
    planned: int
    error: str = Field(description="Why the node did not take the order, such as no answer; empty if it did.")


class RecycleOut(Schema):
    """`planned`: workers to replace, on all nodes together."""

    planned: int
    nodes: list[NodeRecycleOut]

"""What all nodes have together, on the overview and on the page of a pool. Empty in a project with one node."""

from __future__ import annotations

from snakepit.pools.dashboard.region import Context
from snakepit.pools.dashboard.state import DashboardState


def nodes(state: DashboardState, _: str) -> Context:
    return {"cluster": state.cluster}


def answering(state: DashboardState) -> Context:
    """How many nodes answer."""
    cluster = state.cluster
    if cluster is None:
        return {"nodes": 0}
    return {"nodes": len(cluster.nodes), "answering": len(cluster.nodes) - len(cluster.away)}


def of_pool(state: DashboardState, name: str) -> Context:
    cluster = state.cluster
    return {
        "cluster": cluster,
        "merged": cluster.pool(name) if cluster else None,
        "name": name,
        "here": next((node.name for node in cluster.nodes if node.own), "") if cluster else "",
    }

"""What all nodes have together, on the overview and on the page of a pool. Empty in a project with one node."""

from __future__ import annotations

from snakepit.pools.dashboard.region import Context
from snakepit.pools.dashboard.state import DashboardState


def totals(state: DashboardState, _: str) -> Context:
    cluster = state.cluster
    if cluster is None:
        return {"cluster": None}
    names = ("size", "ready", "busy", "slots", "free", "waiting", "memory_mb")
    sums = {name: sum(getattr(pool, name) for pool in cluster.pools) for name in names}
    return {
        "cluster": cluster,
        **sums,
        "taken": sums["slots"] - sums["free"],
        "oldest_wait": max((pool.oldest_wait for pool in cluster.pools), default=0.0),
        "answering": len(cluster.nodes) - len(cluster.away),
        "here": next((node.name for node in cluster.nodes if node.own), ""),
    }


def of_pool(state: DashboardState, name: str) -> Context:
    cluster = state.cluster
    return {
        "cluster": cluster,
        "merged": cluster.pool(name) if cluster else None,
        "name": name,
        "here": next((node.name for node in cluster.nodes if node.own), "") if cluster else "",
    }

"""The points of pools in the last minutes: on one node, and on all nodes together.

a round of answers ─▶ ClusterSeries.add() ─▶ the points of each node ─▶ one point of all that answered
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from snakepit.pools.broker.status import BrokerStatus, PoolHistograms
from snakepit.pools.client.cluster_status import NodeAnswer
from snakepit.pools.dashboard.points import RING, Point, PoolSeries, combined, is_set_back, spark

NO_HISTOGRAMS = PoolHistograms()


class NodeSeries:
    """The points of one node: of each pool, and of all its pools together."""

    def __init__(self) -> None:
        self.pools: dict[str, PoolSeries] = {}
        self.total: deque[Point] = deque(maxlen=RING)

    def add(self, status: BrokerStatus, at: float) -> None:
        if self.total and is_set_back(self.total[-1].at, at):
            self.clear()
        states: dict[str, list[str]] = {pool.name: [] for pool in status.pools}
        for worker in status.workers:
            states.setdefault(worker.pool, []).append(worker.state)
        for pool in status.pools:
            histograms = status.histograms.get(pool.name, NO_HISTOGRAMS)
            self.pools.setdefault(pool.name, PoolSeries()).add(pool, states[pool.name], histograms, at)
        for gone in self.pools.keys() - {pool.name for pool in status.pools}:
            del self.pools[gone]
        if total := combined(list(self.pools.values())):
            self.total.append(total)

    def newest(self) -> dict[str, Point]:
        """The last point of each pool; "": of all pools together."""
        found = {name: series.points[-1] for name, series in self.pools.items()}
        return {**found, "": self.total[-1]} if self.total else found

    def sparks(self) -> dict[str, list[float | None]]:
        return {name: spark(series.points) for name, series in self.pools.items()}

    def clear(self) -> None:
        self.pools.clear()
        self.total.clear()

    def points(self, pool: str) -> Iterable[Point]:
        """Those of a pool, or of all pools together ("")."""
        if not pool:
            return self.total
        return self.pools[pool].points if pool in self.pools else ()


def broker_of(status: BrokerStatus) -> tuple[str, int, float]:
    """Which broker answered: the counters of another one begin anew."""
    return status.node.name, status.node.pid, status.node.started_at


class ClusterSeries:
    """The points of several nodes. A round adds the nodes that answered; the others have a gap."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeSeries] = {}
        self._brokers: dict[str, tuple[str, int, float]] = {}
        self._merged: dict[str, deque[Point]] = {}  # by pool; "": all pools

    def add(self, answers: Iterable[NodeAnswer], at: float) -> None:
        known, answered = [], []
        for answer in answers:
            known.append(answer.name)
            if answer.status is None:
                continue
            series = self._nodes.setdefault(answer.name, NodeSeries())
            broker = broker_of(answer.status)
            if self._brokers.get(answer.name) != broker:
                series.clear()
                self._brokers[answer.name] = broker
            series.add(answer.status, at)
            answered.append(series)
        for gone in self._nodes.keys() - set(known):
            del self._nodes[gone], self._brokers[gone]
        self._merge(answered)

    def _merge(self, answered: list[NodeSeries]) -> None:
        parts: dict[str, list[PoolSeries]] = {}
        for series in answered:
            for name, one in series.pools.items():
                parts.setdefault(name, []).append(one)
                parts.setdefault("", []).append(one)
        for name, found in parts.items():
            if point := combined(found):
                points = self._merged.setdefault(name, deque(maxlen=RING))
                if points and is_set_back(points[-1].at, point.at):
                    points.clear()
                points.append(point)
        hosted = {"", *(name for one in self._nodes.values() for name in one.pools)}
        for gone in self._merged.keys() - hosted:
            del self._merged[gone]

    def newest(self) -> dict[str, Point]:
        """The last point of each pool on all nodes together; "": of all pools."""
        return {name: points[-1] for name, points in self._merged.items()}

    def sparks(self) -> dict[str, list[float | None]]:
        return {name: spark(points) for name, points in self._merged.items()}

    def points(self, pool: str, node: str = "") -> Iterable[Point]:
        """Those of a pool, or of all pools (""), on all nodes or on one."""
        if not node:
            return self._merged.get(pool, ())
        return self._nodes[node].points(pool) if node in self._nodes else ()

"""What the dashboard shows: the newest status of the broker, with what follows from the ones before. No I/O.

    status ─▶ fold() ─▶ DashboardState (immutable, the newest)    series of points for the charts of the last minutes
    failure ─▶ miss() ─▶ the same state, stale since ...

Every page shows how old its numbers are: `seen_at` is the time of the newest status, `trouble_since` the time since
which the broker has not answered.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from snakepit.pools.broker.status import (
    BrokerStatus,
    NodeStatus,
    PoolStatus,
    RecordedEvent,
    WorkerStatus,
)
from snakepit.pools.client.cluster_status import ClusterStatus, NodeAnswer, WorkerOnNode, merge
from snakepit.pools.dashboard.alerts import Alert, StoredState, find_alerts
from snakepit.pools.dashboard.memory import MemoryHistory
from snakepit.pools.dashboard.node_series import NO_HISTOGRAMS, ClusterSeries, NodeSeries, broker_of
from snakepit.pools.dashboard.points import Point
from snakepit.pools.web.last_status import OTHER

EVENTS = 200


@dataclass(frozen=True, slots=True)
class DashboardState:
    """What is known at one moment. All readers share it, so nothing may change it."""

    version: int = 0
    seen_at: float = 0.0  # seconds since the epoch; 0: the broker has never answered
    status: BrokerStatus | None = None  # None: the broker has never answered
    events: tuple[RecordedEvent, ...] = ()  # the newest first
    trouble: str = ""  # why the broker does not answer
    trouble_since: float = 0.0
    trouble_kind: str = ""  # of last_status: SILENT, ABSENT, or OTHER such as a wrong token
    rates: Mapping[str, Point] = field(default_factory=dict)  # the newest point of each pool
    total: Point | None = None  # the newest point of all pools together
    sparks: Mapping[str, list[float | None]] = field(default_factory=dict)  # calls a second in the last minute, by pool
    alerts: tuple[Alert, ...] = ()
    memory: Mapping[str, list[float]] = field(default_factory=dict)  # MiB in the last minutes, by worker
    stored: StoredState = field(default_factory=StoredState)
    cluster: ClusterStatus | None = None  # of all nodes, where there are several

    @property
    def known(self) -> bool:
        return self.status is not None

    @property
    def node(self) -> NodeStatus | None:
        return self.status.node if self.status else None

    @property
    def pools(self) -> tuple[PoolStatus, ...]:
        return self.status.pools if self.status else ()

    @property
    def workers(self) -> tuple[WorkerStatus, ...]:
        return self.status.workers if self.status else ()

    def pool(self, name: str) -> PoolStatus | None:
        return self.status.pool(name) if self.status else None

    def worker(self, ident: str) -> WorkerStatus | None:
        return self.status.worker(ident) if self.status else None

    @property
    def all_workers(self) -> tuple[WorkerOnNode, ...]:
        """The workers of all nodes that answer, by node; in a project with one node, its own."""
        if self.cluster is None:
            name = self.node.name if self.node else ""
            return tuple(WorkerOnNode(name, one) for one in self.workers)
        return self.cluster.workers

    def find_worker(self, ident: str) -> WorkerOnNode | None:
        """A worker of any node; that of this host is the newest one that is known."""
        if (own := self.worker(ident)) is not None and self.node is not None:
            return WorkerOnNode(self.node.name, own)
        return next((one for one in self.all_workers if one.worker.id == ident), None)

    def workers_of(self, pool: str) -> tuple[WorkerStatus, ...]:
        return self.status.workers_of(pool) if self.status else ()

    def recycled(self, pool: str) -> Mapping[str, int]:
        """Workers of a pool that were replaced since the broker started, by reason."""
        return self.status.histograms.get(pool, NO_HISTOGRAMS).recycled if self.status else {}

    def events_of(self, *, pool: str = "", worker: str = "") -> list[RecordedEvent]:
        return [one for one in self.events if pool in ("", one.pool) and worker in ("", one.worker)]


class StateStore:
    """The newest DashboardState, and the last minutes of each pool. Safe between the loop that writes and threads."""

    def __init__(self, objective: float = 1.0) -> None:
        self.objective = objective  # seconds that a call may wait
        self.state = DashboardState()
        self._cluster: ClusterStatus | None = None  # shown with the next status
        self._cluster_series = ClusterSeries()
        self._series = NodeSeries()
        self._lock = threading.Lock()
        self._broker = ("", 0, 0.0)  # another pid or start means other counters and other numbers of events
        self._settled = False  # the same broker has answered twice
        self._memory = MemoryHistory()
        self._stored = StoredState()
        self._since: dict[str, float] = {}  # when this process first saw each alert

    def fold(self, status: BrokerStatus, at: float) -> DashboardState:
        with self._lock:
            broker = broker_of(status)
            self._settled = broker == self._broker
            if not self._settled:
                self._series.clear()
                self._memory.clear()
                self._broker = broker
            self._series.add(status, at)
            workers = self._add_memory(status.workers, at)
            self.state = DashboardState(
                version=self.state.version + 1,
                seen_at=at,
                status=status,
                events=_newest(self.state.events if self._settled else (), status.events),
                rates={name: series.points[-1] for name, series in self._series.pools.items()},
                total=self._series.total[-1] if self._series.total else None,
                sparks={name: series.spark() for name, series in self._series.pools.items()},
                memory={worker: self._memory.values(worker) for worker in workers},
                stored=self._stored,
                cluster=self._cluster,
            )
            self.state = replace(self.state, alerts=self._alerts(status, at))
            return self.state

    def note(self, stored: StoredState) -> None:
        """Keep what the database holds; it is shown with the next status."""
        self._stored = stored

    def miss(self, trouble: str, since: float, kind: str = OTHER) -> DashboardState:
        """The broker has not answered since a time: the last state stays, marked as stale."""
        with self._lock:
            self.state = replace(
                self.state, version=self.state.version + 1, trouble=trouble, trouble_since=since, trouble_kind=kind,
                cluster=self._cluster,
            )  # fmt: skip
            return self.state

    def fold_nodes(self, answers: Sequence[NodeAnswer], at: float) -> None:
        """Take what all nodes answered; it is shown with the next status. Empty: there is one node."""
        with self._lock:
            self._cluster = merge(answers) if answers else None
            self._cluster_series.add(answers, at)

    def points(self, pool: str, after: float = 0.0, node: str = "") -> list[Point]:
        """The points of a pool, or of all pools together (""), after a time; on all nodes, or on one."""
        with self._lock:
            alone = self._cluster is None
            found = self._series.points(pool) if alone else self._cluster_series.points(pool, node)
            return [point for point in found if point.at > after]

    def last_event(self) -> int:
        """The number after which the broker is asked for events; 0, all, until one broker has answered twice."""
        return self.state.events[0].seq if self.state.events and self._settled else 0

    def _alerts(self, status: BrokerStatus, at: float) -> tuple[Alert, ...]:
        found = find_alerts(status, self.state.events, self._stored, self.objective, at)
        self._since = {alert.key: self._since.get(alert.key, at) for alert in found}
        return tuple(
            alert if alert.since else replace(alert, since=self._since[alert.key], first_seen=True) for alert in found
        )

    def _add_memory(self, own: Iterable[WorkerStatus], at: float) -> list[str]:
        """Sample the memory of the workers of all nodes; return their ids."""
        away = self._cluster.workers if self._cluster else ()
        workers = {worker.id: worker.memory_mb for worker in (*(one.worker for one in away), *own)}
        for ident, memory_mb in workers.items():
            self._memory.add(ident, memory_mb, at)
        self._memory.keep(list(workers))
        return list(workers)


def _newest(known: tuple[RecordedEvent, ...], fresh: Iterable[RecordedEvent]) -> tuple[RecordedEvent, ...]:
    """The broker numbers its events, so one that came twice counts once."""
    have = {event.seq for event in known}
    new = [event for event in fresh if event.seq not in have]
    return (*reversed(new), *known)[:EVENTS] if new else known

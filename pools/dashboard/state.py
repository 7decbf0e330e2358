"""What the dashboard shows: the newest statuses of the brokers, with what follows from the ones before. No I/O.

    status ─▶ fold() ─▶ DashboardState (immutable, the newest)    series of points for the charts of the last minutes
    failure ─▶ miss() ─▶ the same state, stale since ...
    answers of all nodes ─▶ fold_nodes() ─▶ shown with the next of the two

`fold` and `miss` are about the broker of this host. With several nodes, figures, alerts and events are those of all
nodes that answer.

Every page shows how old its numbers are: `seen_at` is the time of the newest status, `trouble_since` the time since
which the broker has not answered.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from snakepit.pools.broker.stats.histogram import merged
from snakepit.pools.broker.status import (
    BrokerStatus,
    NodeStatus,
    PoolStatus,
    RecordedEvent,
    WorkerStatus,
)
from snakepit.pools.client.cluster_status import ClusterStatus, MergedPool, NodeAnswer, WorkerOnNode, merge
from snakepit.pools.client.node_events import NodeEvents
from snakepit.pools.dashboard.alerts import Alert, StoredState, find_alerts, of_stored, worst_first
from snakepit.pools.dashboard.memory import MemoryHistory
from snakepit.pools.dashboard.node_alerts import alerts_of_nodes, together
from snakepit.pools.dashboard.node_answers import NodeAnswers
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
    memory: Mapping[str, list[float | None]] = field(default_factory=dict)  # MiB in the last minutes, by worker
    stored: StoredState = field(default_factory=StoredState)
    cluster: ClusterStatus | None = None  # of all nodes, where there are several
    statuses: Mapping[str, BrokerStatus] = field(default_factory=dict)  # of each node that answers, there
    nodes_at: float = 0.0  # when they were asked, in seconds since the epoch

    @property
    def known(self) -> bool:
        """Whether the broker of this host has ever answered."""
        return self.status is not None

    @property
    def others_answer(self) -> bool:
        """Whether a node other than that of this host answers."""
        return self.cluster is not None and any(one.answers and not one.own for one in self.cluster.nodes)

    @property
    def shown(self) -> bool:
        """Whether there is something to show."""
        return self.known or self.others_answer

    @property
    def at(self) -> float:
        """The time of what is shown."""
        return max(self.seen_at, self.nodes_at)

    @property
    def stale(self) -> bool:
        """Whether no broker answers, so that what is shown is old."""
        return bool(self.trouble) and not self.others_answer

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

    def hosts_of(self, pool: str) -> Mapping[str, BrokerStatus]:
        """The nodes that have a pool, with their status: that of this host first."""
        if self.cluster is None:
            return {self.status.node.name: self.status} if self.status and self.status.pool(pool) else {}
        own = {one.name for one in self.cluster.nodes if one.own}
        names = sorted(self.statuses, key=lambda name: (name not in own, name))
        return {name: self.statuses[name] for name in names if self.statuses[name].pool(pool)}

    def totals_of(self, pool: str) -> PoolStatus | MergedPool | None:
        """A pool on all nodes that answer; in a project with one node, on its own."""
        return self.cluster.pool(pool) if self.cluster else self.pool(pool)

    def recycled(self, pool: str) -> Mapping[str, int]:
        """Workers of a pool that were replaced since the brokers started, by reason."""
        return merged(one.histograms.get(pool, NO_HISTOGRAMS).recycled for one in self.hosts_of(pool).values())

    def events_of(self, *, pool: str = "", worker: str = "") -> list[RecordedEvent]:
        return [one for one in self.events if pool in ("", one.pool) and worker in ("", one.worker)]


class StateStore:
    """The newest DashboardState, and the last minutes of each pool. Safe between the loop that writes and threads."""

    def __init__(self, objective: float = 1.0) -> None:
        self.objective = objective  # seconds that a call may wait
        self.state = DashboardState()
        self._answers = NodeAnswers()  # of all nodes, where there are several
        self._cluster_series = ClusterSeries()
        self._series = NodeSeries()
        self._events = NodeEvents(EVENTS)
        self._lock = threading.Lock()
        self._broker = ("", 0, 0.0)  # another pid or start means other counters
        self._memory = MemoryHistory()
        self._stored = StoredState()
        self._since: dict[tuple[str, tuple[str, ...]], float] = {}  # when this process first found each alert

    def fold(self, status: BrokerStatus, at: float) -> DashboardState:
        """Take the status of the broker of this host."""
        with self._lock:
            broker = broker_of(status)
            if broker != self._broker:
                self._series.clear()
                self._memory.clear()
                self._broker = broker
            self._series.add(status, at)
            self._events.add(status)
            self._answers.take_own(status, at)
            return self._show(DashboardState(version=self.state.version, seen_at=at, status=status), at)

    def note(self, stored: StoredState) -> None:
        """Keep what the database holds; it is shown with the next status."""
        self._stored = stored

    def miss(self, trouble: str, since: float, kind: str = OTHER, at: float = 0.0) -> DashboardState:
        """The broker of this host has not answered since a time: its last status stays, marked as stale."""
        with self._lock:
            self._answers.miss_own(trouble)
            last = replace(self.state, trouble=trouble, trouble_since=since, trouble_kind=kind)
            if self._answers.all():
                return self._show(last, at)
            # What the database holds is still read, so its alerts are of now.
            self.state = replace(last, version=last.version + 1, cluster=None, statuses={}, stored=self._stored)
            self.state = replace(self.state, alerts=self._alerts((), last.seen_at or at))
            return self.state

    def fold_nodes(self, answers: Sequence[NodeAnswer], at: float) -> None:
        """Take what all nodes answered; it is shown with the next status. Empty: there is one node."""
        with self._lock:
            self._answers.take(answers, at)
            self._cluster_series.add(answers, at)
            for answer in answers:
                if answer.status is not None:
                    self._events.add(answer.status)

    def _show(self, state: DashboardState, at: float) -> DashboardState:
        """Complete a state with what follows from it and from the ones before."""
        answers = self._answers.all()
        cluster = merge(answers, at) if answers else None
        self._events.keep([one.name for one in answers] or [state.node.name if state.node else ""])
        workers = self._add_memory((*(one.worker for one in (cluster.workers if cluster else ())), *state.workers), at)
        newest = self._cluster_series.newest() if cluster else self._series.newest()
        self.state = replace(
            state,
            version=state.version + 1,
            cluster=cluster,
            statuses={one.name: one.status for one in answers if one.status is not None},
            nodes_at=self._answers.at,
            events=self._events.newest(),
            rates={name: point for name, point in newest.items() if name},
            total=newest.get(""),
            sparks=self._cluster_series.sparks() if cluster else self._series.sparks(),
            memory={worker: self._memory.values(worker) for worker in workers},
            stored=self._stored,
        )
        self.state = replace(self.state, alerts=self._alerts(answers, at))
        return self.state

    def points(self, pool: str, after: float = 0.0, node: str = "") -> list[Point]:
        """The points of a pool, or of all pools together (""), after a time; on all nodes, or on one."""
        with self._lock:
            alone = not self._answers.all()
            found = self._series.points(pool) if alone else self._cluster_series.points(pool, node)
            return [point for point in found if point.at > after]

    def last_event(self) -> int:
        """The number after which the broker of this host is asked for events; 0: all."""
        return self._events.numbers().get(self._broker[0], 0)

    def event_numbers(self) -> Mapping[str, int]:
        """The same for each node."""
        with self._lock:
            return self._events.numbers()

    def _alerts(self, answers: Sequence[NodeAnswer], at: float) -> tuple[Alert, ...]:
        status = self.state.status
        if answers:
            found = alerts_of_nodes(answers, self._events.of, self._stored, self.objective, at)
        elif status is not None:
            old = bool(self.state.trouble)
            found = find_alerts(status, self._events.newest(), self._stored, self.objective, at, is_old=old)
        else:
            found = worst_first(of_stored(self._stored))
        self._since = {(alert.key, alert.nodes): self._since.get((alert.key, alert.nodes), at) for alert in found}
        dated = [
            alert if alert.since else replace(alert, since=self._since[alert.key, alert.nodes], first_seen=True)
            for alert in found
        ]
        return tuple(worst_first(together(dated)) if answers else dated)

    def _add_memory(self, shown: Iterable[WorkerStatus], at: float) -> list[str]:
        """Sample the memory of workers; return their ids."""
        workers = {worker.id: worker.memory_mb for worker in shown}
        for ident, memory_mb in workers.items():
            self._memory.add(ident, memory_mb, at)
        self._memory.keep(list(workers))
        return list(workers)

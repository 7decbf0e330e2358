"""Merges the statuses of several nodes into one view. Pure: no I/O and no clock.

    answers of the nodes ─▶ merge() ─▶ ClusterStatus: each node, and each pool with its figures and those of its nodes

Counts add up. Percentiles come from merged histograms, because a mean of percentiles is no percentile. The state of a
pool is the worst one, with its node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from snakepit.pools.broker.stats.histogram import merged, quantile
from snakepit.pools.broker.status import BrokerStatus, PoolHistograms, PoolStatus, WorkerStatus

WORST_FIRST = ("failed", "degraded", "stopping", "starting", "paused", "ready")  # states of a pool
LIVE, DRAINING, AWAY = "live", "draining", "not answering"  # states of a node
SUMMED = (
    "size", "ready", "busy", "slots", "free", "lost", "waiting", "queue_limit", "finished", "failed", "refused",
    "retried", "recycled", "died", "memory_mb", "buffer_bytes",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """What a node answered, or why it did not."""

    name: str
    status: BrokerStatus | None = None  # None: see the reason
    reason: str = ""
    own: bool = False  # the node of this host
    seen_at: float = 0.0  # seconds since the epoch: when it answered, or last wrote its row; 0: not known


@dataclass(frozen=True, slots=True)
class Latency:
    """How long calls ran and waited since the brokers started, in seconds. None: no call, or not reported."""

    run_p50: float | None = None
    run_p95: float | None = None
    run_p99: float | None = None
    wait_p50: float | None = None
    wait_p95: float | None = None


@dataclass(frozen=True, slots=True)
class PoolTotals:
    """PoolTotals of a pool, on one node or on several. Counters rise from the start of each broker."""

    size: int  # desired number of workers
    ready: int
    busy: int  # ready workers with at least one call
    slots: int
    free: int
    lost: int  # slots that are held by threads that did not stop
    waiting: int
    queue_limit: int
    finished: int
    failed: int
    refused: int
    retried: int
    recycled: int
    died: int
    memory_mb: float
    buffer_bytes: int  # of the arguments in shared memory, of calls that wait or run
    oldest_wait: float  # the longest
    latency: Latency

    @property
    def taken(self) -> int:
        """Slots that hold a call."""
        return self.slots - self.free

    @property
    def buffer_mb(self) -> float:
        """MiB of arguments in shared memory."""
        return self.buffer_bytes / 2**20


@dataclass(frozen=True, slots=True)
class PoolOnNode(PoolTotals):
    """A pool on one node."""

    node: str
    state: str
    reason: str

    @property
    def kind(self) -> tuple[str, str, int, int]:
        """What is compared between nodes."""
        return self.state, self.reason, self.ready, self.size


@dataclass(frozen=True, slots=True)
class MergedPool(PoolTotals):
    """A pool on all nodes that answered."""

    name: str
    state: str  # the worst one
    reason: str
    state_node: str  # the node that is in this state
    profile: str
    parallel: str  # how many threads of a worker run together, where it is the same on all nodes
    warnings: tuple[str, ...]  # each with its nodes, unless all have it
    nodes: tuple[PoolOnNode, ...]  # those that host it, by name

    @property
    def paused(self) -> bool:
        """Whether a node that hosts it refuses calls because of a pause."""
        return any(one.state == "paused" for one in self.nodes)

    @property
    def different(self) -> tuple[PoolOnNode, ...]:
        """The nodes on which its state, reason or number of workers is not that of most nodes."""
        kinds = Counter(one.kind for one in self.nodes)
        if len(kinds) < 2:
            return ()
        (usual, count), (_, second) = kinds.most_common(2)
        return tuple(one for one in self.nodes if count == second or one.kind != usual)


@dataclass(frozen=True, slots=True)
class NodeSummary:
    """A node and the sums over its pools."""

    name: str
    own: bool  # the node of this host
    state: str  # "live", "draining" or "not answering"
    reason: str  # why it does not answer, or why it drains
    seen_at: float  # seconds since the epoch: when it answered, or last wrote its row; 0: not known
    age: float | None  # seconds since then; None: not known
    version: str
    problems: tuple[str, ...]
    pools: int
    size: int
    ready: int
    busy: int
    slots: int
    free: int
    waiting: int
    memory_mb: float

    @property
    def taken(self) -> int:
        """Slots that hold a call."""
        return self.slots - self.free

    @property
    def answers(self) -> bool:
        return self.state != AWAY


@dataclass(frozen=True, slots=True)
class WorkerOnNode:
    """A worker and its node."""

    node: str
    worker: WorkerStatus


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """All nodes at one moment. The figures are those of the nodes that answered."""

    nodes: tuple[NodeSummary, ...]
    pools: tuple[MergedPool, ...]
    workers: tuple[WorkerOnNode, ...]

    @property
    def away(self) -> tuple[NodeSummary, ...]:
        """The nodes that do not answer."""
        return tuple(one for one in self.nodes if not one.answers)

    def pool(self, name: str) -> MergedPool | None:
        return next((one for one in self.pools if one.name == name), None)

    def node_of(self, worker: str) -> str:
        """The node that has this worker; empty: none that answered."""
        return next((one.node for one in self.workers if one.worker.id == worker), "")


def merge(answers: Iterable[NodeAnswer], now: float = 0.0) -> ClusterStatus:
    """One view of all nodes, by name, at a time. The order of the answers does not matter."""
    ordered = sorted(answers, key=lambda one: one.name)
    parts: dict[str, list[tuple[str, PoolStatus, PoolHistograms]]] = {}
    workers = []
    for answer in ordered:
        if answer.status is None:
            continue
        for pool in answer.status.pools:
            histograms = answer.status.histograms.get(pool.name, PoolHistograms())
            parts.setdefault(pool.name, []).append((answer.name, pool, histograms))
        workers += [WorkerOnNode(answer.name, one) for one in answer.status.workers]
    pools = tuple(_merged(name, parts[name]) for name in sorted(parts))
    return ClusterStatus(tuple(_summary(one, now) for one in ordered), pools, tuple(workers))


def _merged(name: str, parts: Sequence[tuple[str, PoolStatus, PoolHistograms]]) -> MergedPool:
    node, worst, _ = min(parts, key=lambda part: (_rank(part[1].state), part[0]))
    return MergedPool(
        **_totals([pool for _, pool, _ in parts], [histograms for *_, histograms in parts]),
        name=name, state=worst.state, reason=worst.reason, state_node=node, profile=worst.profile,
        parallel=worst.parallel if len({pool.parallel for _, pool, _ in parts}) == 1 else "",
        warnings=_warnings(parts),
        nodes=tuple(
            PoolOnNode(**_totals([pool], [histograms]), node=at, state=pool.state, reason=pool.reason)
            for at, pool, histograms in parts
        ),
    )  # fmt: skip


def _warnings(parts: Sequence[tuple[str, PoolStatus, PoolHistograms]]) -> tuple[str, ...]:
    """Each warning once; with its nodes, unless all nodes of the pool have it."""
    found: dict[str, list[str]] = {}
    for node, pool, _ in parts:
        for warning in pool.warnings:
            found.setdefault(warning, []).append(node)
    return tuple(text if len(on) == len(parts) else f"on {', '.join(on)}: {text}" for text, on in found.items())


def _rank(state: str) -> int:
    return WORST_FIRST.index(state) if state in WORST_FIRST else -1


def _totals(pools: Sequence[PoolStatus], histograms: Sequence[PoolHistograms]) -> dict[str, Any]:
    sums: dict[str, Any] = {name: sum(getattr(pool, name) for pool in pools) for name in SUMMED}
    sums["memory_mb"] = round(sums["memory_mb"], 1)
    return {**sums, "oldest_wait": max(pool.oldest_wait for pool in pools), "latency": _latency(histograms)}


def _latency(histograms: Sequence[PoolHistograms]) -> Latency:
    ran, queued = merged(one.ran for one in histograms), merged(one.queued for one in histograms)
    return Latency(
        run_p50=quantile(ran, 0.5), run_p95=quantile(ran, 0.95), run_p99=quantile(ran, 0.99),
        wait_p50=quantile(queued, 0.5), wait_p95=quantile(queued, 0.95),
    )  # fmt: skip


def _summary(answer: NodeAnswer, now: float) -> NodeSummary:
    status = answer.status
    pools, node = (status.pools, status.node) if status else ((), None)
    draining = node is not None and node.draining
    sums = {name: sum(getattr(pool, name) for pool in pools) for name in ("size", "ready", "busy", "slots", "free")}
    return NodeSummary(
        name=answer.name,
        own=answer.own,
        state=AWAY if node is None else DRAINING if draining else LIVE,
        reason=answer.reason if node is None else (node.drain_reason or "its broker stops") if draining else "",
        seen_at=answer.seen_at,
        age=round(max(0.0, now - answer.seen_at), 3) if now and answer.seen_at else None,
        version=node.version if node else "",
        problems=node.problems if node else (),
        pools=len(pools),
        **sums,
        waiting=sum(pool.waiting for pool in pools),
        memory_mb=round(sum(pool.memory_mb for pool in pools), 1),
    )

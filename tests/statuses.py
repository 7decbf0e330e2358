"""Builders of statuses for tests: complete values, of which a test names only what it is about.

>>> pool("digits", waiting=3).waiting
3
>>> status(pools=[pool("a"), pool("b")]).pool("b").name
'b'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from snakepit.pools.broker.command_status import CommandRunTimes
from snakepit.pools.broker.status import (
    BrokerStatus,
    CommandGrowthStatus,
    GrowthStatus,
    NodeStatus,
    PoolHistograms,
    PoolStatus,
    RecordedEvent,
    TemplateStatus,
    UsageStatus,
    WorkerStatus,
)

_NODE = NodeStatus(
    name="node-1", version="0.1", pid=7, address="/run/broker.sock", started_at=1e9, uptime=60.0, draining=False,
    clock="beat", loop_lag=0.0, python="3.11.9", sessions=1, problems=(), drain_since=0.0, drain_actor="",
    drain_reason="",
)  # fmt: skip
_GROWTH = GrowthStatus(None, calls=0, samples=0, mostly="", verdict="not enough evidence")
_USAGE = UsageStatus(
    seconds=0.0, answered=0, calls_per_second=None, busy=None, peak=0, waited=0, wait_p50=None, wait_p95=None,
    refused=0, timed_out=0, overran=0, lost=0, not_admitted=0, cpu_per_call=None, cpu_calls=0,
)  # fmt: skip
_TEMPLATE = TemplateStatus(
    state="off", reason="off", why="", id="", pid=0, generation=0, memory_mb=-1.0, load_seconds=0.0, deaths=0, output=()
)
_POOL = PoolStatus(
    name="p", profile="process", adapter="digits", state="ready", reason="", size=1, ready=1, busy=0, slots=1, free=1,
    lost=0, waiting=0, oldest_wait=0.0, queue_limit=1000, generation=1, finished=0, failed=0, refused=0, retried=0,
    recycled=0, died=0, memory_mb=0.0, warnings=(), interpreter="", load_seconds=0.0, growth=_GROWTH, gil="",
    gil_culprit="", parallelism=0.0, parallel="", races=(), suspended=(), prefetched=0, run_times=(), batches=(),
    buffer_bytes=0, usage=_USAGE, template=_TEMPLATE,
)  # fmt: skip
_WORKER = WorkerStatus(
    id="p-1", pool="p", pid=11, state="ready", reason="", load=0, capacity=1, lost=0, served=0, memory_mb=-1.0,
    gil="on", gil_culprit="", generation=1, started_at=1e9, load_seconds=0.5, python="3.11.9", parallelism=0.0,
    calls=(), output=(), due_in=None, expected=False, growth=_GROWTH, silent_for=0.0, prefetched=0, mb_per_hour=None,
    template="",
)  # fmt: skip


def node(**changes: Any) -> NodeStatus:
    return replace(_NODE, **changes)


def pool(name: str = "p", **changes: Any) -> PoolStatus:
    return replace(_POOL, name=name, **changes)


def worker(ident: str = "p-1", **changes: Any) -> WorkerStatus:
    """A ready worker of the pool that its id names."""
    return replace(_WORKER, **{"id": ident, "pool": ident.rsplit("-", 1)[0], **changes})


def growth(mb_per_1000_calls: float | None = None, **changes: Any) -> GrowthStatus:
    """Measured, where there is a figure."""
    verdict = "not enough evidence" if mb_per_1000_calls is None else "measured"
    return replace(_GROWTH, **{"mb_per_1000_calls": mb_per_1000_calls, "verdict": verdict, **changes})


def command_growth(command: str, mb: float | None, error: float | None, **changes: Any) -> CommandGrowthStatus:
    verdict = "not enough evidence" if mb is None else "measured"
    return replace(CommandGrowthStatus(command, mb, error, 100, 10, verdict), **changes)


def usage(**changes: Any) -> UsageStatus:
    return replace(_USAGE, **changes)


def template(state: str = "ready", **changes: Any) -> TemplateStatus:
    return replace(_TEMPLATE, state=state, **changes)


def run_times(command: str, count: int, seconds: float, buckets: Iterable[int] = (0,) * 7) -> CommandRunTimes:
    return CommandRunTimes(command, count, seconds, seconds / count if count else 0.0, tuple(buckets))


def event(seq: int, kind: str = "worker.started", **changes: Any) -> RecordedEvent:
    return replace(RecordedEvent(seq, float(seq), kind, "p", "p-1", "", "", "info"), **changes)


def status(
    pools: Iterable[PoolStatus] = (),
    workers: Iterable[WorkerStatus] = (),
    *,
    events: Iterable[RecordedEvent] = (),
    histograms: Mapping[str, PoolHistograms] | None = None,
    **of_node: Any,
) -> BrokerStatus:
    """`of_node`: changes of the node."""
    return BrokerStatus(node(**of_node), tuple(pools), tuple(workers), tuple(events), histograms or {})

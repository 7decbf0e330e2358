"""The workers that the machine of a local broker holds in its memory, before an order to scale."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import psutil

from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.diagnostics.machine import room_here
from snakepit.pools.diagnostics.scaling import ScalingFacts, gather

LOOKED_AT = 4  # workers; reading the memory of a large process takes milliseconds


def facts_here(status: BrokerStatus, pool: str, address: str) -> ScalingFacts | None:
    """The measured figures of a pool; None: the broker has no such pool."""
    if status.pool(pool) is None:
        return None
    facts = gather(status, pool, room_here(address, status.node.pid))
    if facts.free_mb is None or facts.each_mb is not None:
        return facts
    # The broker measures in its sweeps: an order soon after a start comes before the first.
    ready = [one.pid for one in status.workers_of(pool) if one.state == "ready"]
    known = [mb for pid in ready[:LOOKED_AT] if (mb := _memory_mb(pid)) > 0]
    return replace(facts, each_mb=sum(known) / len(known), measured=len(known)) if known else facts


def _memory_mb(pid: int) -> float:
    """PSS where the system has it, else RSS; 0 for a process that cannot be read."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        with contextlib.suppress(psutil.AccessDenied):
            full = process.memory_full_info()
            return float(getattr(full, "pss", 0) or full.rss) / 2**20
        return float(process.memory_info().rss) / 2**20
    return 0.0

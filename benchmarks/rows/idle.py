"""Idle CPU of the broker, and its memory growth over many calls."""

from __future__ import annotations

import threading

from benchmarks.node import ENDLESS, serving
from benchmarks.row import Contestants, Measured, Row
from benchmarks.usage import cpu_seconds, pss_mb
from benchmarks.work import SMALL

WORKERS = 200
WATCHED = 60.0  # four sweeps
CALLS = 1_000_000


def _idle(contestants: Contestants) -> Measured:
    """CPU of the broker with 200 idle workers, in % of one core."""
    pool = {
        "name": "work",
        "path": "benchmarks.work.Work",
        "size": WORKERS,
        "startup_timeout": 600,
    }
    with serving([pool]) as node:
        node.wait_until_ready("work", WORKERS)
        # The effects of the starts, including their first memory readings, must not count as idle CPU.
        while any(worker.memory_mb <= 0 for worker in node.client.status("work").workers):
            threading.Event().wait(1.0)
        threading.Event().wait(5.0)
        before = cpu_seconds(node.broker)
        threading.Event().wait(WATCHED)
        used = (cpu_seconds(node.broker) - before) / WATCHED * 100
    return Measured(used, 2.0, note="the peer's column is the bar")


def _growth(contestants: Contestants) -> Measured:
    """PSS of the broker over a million finished calls, after a warm-up of a tenth of them."""
    with serving([{"name": "work", "path": "benchmarks.work.Work", "size": 2, **ENDLESS}]) as node:
        node.wait_until_ready("work", 2)

        def run(count: int) -> None:
            for _ in node.client.map("work", "echo", ({"value": SMALL} for _ in range(count)), window=512):
                pass

        run(CALLS // 10)
        before = pss_mb([node.broker])
        run(CALLS)
        after = pss_mb([node.broker])
    return Measured(after - before, 1.0, note=f"from {before:.1f} to {after:.1f} MiB; the target is 1 MiB")


ROWS = (
    Row("idle-200", "broker with 200 idle workers", "the target", "% of a core", _idle, (), target=1),
    Row("growth", "memory of the broker over 1,000,000 calls", "the target", "MiB", _growth, (), target=1),
)

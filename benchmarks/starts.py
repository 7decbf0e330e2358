"""What it takes to have N workers with a scikit-learn model ready: time, and memory that is really used.

    python -m benchmarks.starts 1 10 100

Both ways in one run: forked from a template, and spawned plainly. Memory is the PSS of all workers and the template,
after each worker has answered a call.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.node import serving
from benchmarks.usage import children, pss_mb
from snakepit.pools.client import Client

PATIENT = {"startup_timeout": 3600.0, "queue_timeout": 3600.0, "queue_limit": 100_000}


@dataclass(frozen=True, slots=True)
class Starts:
    """`seconds` from the moment that the broker listens, having just seen the pool, until its last worker is ready."""

    workers: int
    seconds: float
    memory_mb: float


def starts(workers: int, *, forked: bool, threads: int = 0, path: str = "benchmarks.forest.Forest") -> Starts:
    """Start a broker with one pool of so many workers, and measure it. With `threads`, of the thread profile."""
    pool = {"name": "forest", "path": path, "size": workers, "preload": "auto" if forked else "off", **PATIENT}
    if threads:
        pool |= {"profile": "thread", "threads": threads}
    with serving([pool]) as node:
        began = time.perf_counter()
        node.wait_until_ready("forest", workers)
        seconds = time.perf_counter() - began
        warm(node.client, workers * max(1, threads) * 4)
        # The broker's children: its workers, the template, and the keeper, which is a few MiB in both.
        return Starts(workers, seconds, pss_mb(children(node.broker)))


def storm(workers: int, *, forked: bool) -> float:
    """Seconds from the moment that all workers of a pool are killed until as many new ones are ready."""
    path = "benchmarks.forest.Forest"
    pool = {"name": "forest", "path": path, "size": workers, "preload": "auto" if forked else "off", **PATIENT}
    with serving([pool]) as node:
        node.wait_until_ready("forest", workers)
        warm(node.client, workers * 4)
        old = set(node.workers("forest"))
        began = time.perf_counter()
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        while True:
            rows = node.client.status("forest").workers
            if sum(row.state == "ready" and row.pid not in old for row in rows) >= workers:
                return time.perf_counter() - began
            time.sleep(0.01)


def warm(client: Client, calls: int) -> None:
    """Have every worker answer, some more than once."""
    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(client.call, "forest", "classify", {"index": 1}) for _ in range(calls)]:
            done.result()


def main() -> None:
    for workers in map(int, sys.argv[1:] or ("1", "10", "100")):
        forked, spawned = starts(workers, forked=True), starts(workers, forked=False)
        print(
            f"{workers:4} workers: forked {forked.seconds:7.2f} s {forked.memory_mb:8.0f} MiB, "
            f"spawned {spawned.seconds:7.2f} s {spawned.memory_mb:8.0f} MiB, "
            f"{spawned.seconds / forked.seconds:5.1f} x faster, {spawned.memory_mb / forked.memory_mb:5.1f} x less",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Time and memory until N workers with a scikit-learn model are ready.

    python -m benchmarks.starts 1 10 100

Measures both ways in one run: forked from a template, and spawned. Memory is the PSS of all workers and the template,
after each worker has run a call.
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
    """`seconds` from the start of listening, with the pool just loaded, until the last worker is ready."""

    workers: int
    seconds: float
    memory_mb: float


def starts(workers: int, *, forked: bool, threads: int = 0, path: str = "benchmarks.forest.Forest") -> Starts:
    """Start a broker with one pool of `workers` workers, and measure it. `threads` selects the thread profile."""
    pool = {"name": "forest", "path": path, "size": workers, "preload": "auto" if forked else "off", **PATIENT}
    if threads:
        pool |= {"profile": "thread", "threads": threads}
    with serving([pool]) as node:
        began = time.perf_counter()
        node.wait_until_ready("forest", workers)
        seconds = time.perf_counter() - began
        warm(node.client, workers * max(1, threads) * 4)
        # The broker's children: workers, template, and the reaper, which has a few MiB in both cases.
        return Starts(workers, seconds, pss_mb(children(node.broker)))


def storm(workers: int, *, forked: bool) -> float:
    """Seconds from the kill of all workers of a pool until the same number of new ones is ready."""
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
    """Make every worker run at least one call."""
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

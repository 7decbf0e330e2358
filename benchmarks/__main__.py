"""`make bench`: this project beside its peers, on the same work, in one run. Machines are noisy: read the ratios.

ROWS=name,name runs some rows.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import celery_peer, node
from benchmarks.work import SMALL, echo

WORKERS = 2
WARM_UP = 50
ROUNDS = 8
LATEST = Path(__file__).parent / "latest.json"


def medians(ours: Callable[[], object], peer: Callable[[], object], count: int) -> tuple[float, float]:
    """The medians of calls made one after the other, in microseconds.

    In alternating rounds: what else the machine does, a contestant's own start above all, then meets both alike.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for call in (ours, peer):
        for _ in range(WARM_UP):
            call()
    for _ in range(ROUNDS):
        for call, taken in zip((ours, peer), times, strict=True):
            for _ in range(count // ROUNDS):
                began = time.perf_counter()
                call()
                taken.append(time.perf_counter() - began)
    return statistics.median(times[0]) * 1e6, statistics.median(times[1]) * 1e6


def calls_a_second(run: Callable[[int], object], count: int) -> float:
    run(WARM_UP)
    began = time.perf_counter()
    run(count)
    return count / (time.perf_counter() - began)


class Bench:
    """The contestants, each started when the first row needs it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._started: dict[str, Any] = {}

    def get(self, name: str, start: Callable[[], Any]) -> Any:
        if name not in self._started:
            self._started[name] = self._stack.enter_context(start())
        return self._started[name]

    @property
    def ours(self) -> Any:
        return self.get("ours", lambda: node.running(WORKERS))

    @property
    def executor(self) -> Executor:
        executor: Executor = self.get("executor", lambda: ProcessPoolExecutor(WORKERS))
        return executor

    @property
    def celery(self) -> Any:
        return self.get("celery", lambda: celery_peer.running(WORKERS))


Row = tuple[str, str, str, Callable[[Bench], tuple[float, float]], float | None, bool]


def overhead_executor(bench: Bench) -> tuple[float, float]:
    ours, peer = bench.ours, bench.executor
    return medians(lambda: ours.call("echo", "echo", value=SMALL), lambda: peer.submit(echo, SMALL).result(), 2000)


def overhead_celery(bench: Bench) -> tuple[float, float]:
    ours, task = bench.ours, bench.celery and celery_peer.echo
    return medians(lambda: ours.call("echo", "echo", value=SMALL), lambda: task.delay(SMALL).get(timeout=30), 400)


def many_ours(bench: Bench, count: int) -> None:
    for _ in bench.ours.map("echo", "echo", ({"value": SMALL} for _ in range(count)), window=512):
        pass


def many_executor(bench: Bench) -> tuple[float, float]:
    def peer(count: int) -> None:
        futures: list[Future[str]] = [bench.executor.submit(echo, SMALL) for _ in range(count)]
        for future in futures:
            future.result()

    return calls_a_second(lambda count: many_ours(bench, count), 10_000), calls_a_second(peer, 10_000)


def many_celery(bench: Bench) -> tuple[float, float]:
    task = bench.celery and celery_peer.echo

    def peer(count: int) -> None:
        results = [task.delay(SMALL) for _ in range(count)]
        for result in results:
            result.get(timeout=60)

    return calls_a_second(lambda count: many_ours(bench, count), 5000), calls_a_second(peer, 500)


# name, peer, unit, measurement, target ratio (ours / peer), whether smaller is better
ROWS: dict[str, Row] = {
    row[0]: row
    for row in (
        ("overhead-executor", "ProcessPoolExecutor", "µs p50", overhead_executor, None, True),
        ("overhead-celery", "Celery + Valkey", "µs p50", overhead_celery, 0.2, True),
        ("many-executor", "ProcessPoolExecutor", "calls/s", many_executor, None, False),
        ("many-celery", "Celery + Valkey", "calls/s", many_celery, None, False),
    )
}


def chosen() -> Iterator[Row]:
    names = [name for name in os.environ.get("ROWS", "").split(",") if name] or list(ROWS)
    for name in names:
        if name not in ROWS:
            sys.exit(f"no row {name!r}; there are: {', '.join(ROWS)}")
        yield ROWS[name]


def main() -> None:
    rows = list(chosen())
    table = Table(title=f"{WORKERS} workers, CPython {platform.python_version()}, {os.cpu_count()} cores")
    for heading in ("row", "ours", "peer", "", "unit", "ratio", "target"):
        table.add_column(heading, justify="right" if heading in ("ours", "peer", "ratio") else "left")
    results = []
    with ExitStack() as stack:
        bench = Bench(stack)
        for name, peer_name, unit, measure, target, smaller in rows:
            ours, peer = measure(bench)
            ratio = ours / peer
            result: dict[str, Any] = {"name": name, "ours": ours, "peer": peer, "unit": unit, "ratio": ratio}
            verdict = ""
            if target is not None:
                met = ratio <= target if smaller else ratio >= target
                result |= {"target": target, "met": met}
                verdict = f"{'<=' if smaller else '>='} {target:g} {'met' if met else 'MISSED'}"
            results.append(result)
            table.add_row(name, f"{ours:,.0f}", f"{peer:,.0f}", peer_name, unit, f"{ratio:.2f}", verdict)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    LATEST.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

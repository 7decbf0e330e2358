"""Many calls in flight: throughput, and CPU per call in each process."""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmarks.row import Contestants, Measured, Row
from benchmarks.timing import Run, rates
from benchmarks.work import SMALL, echo

IN_FLIGHT = 512
COUNT = 20_000


def _beside(peer: Callable[[Contestants], Run], peer_count: int) -> Callable[[Contestants], Measured]:
    def measure(contestants: Contestants) -> Measured:
        ours = contestants.get("ours")

        def run(count: int) -> None:
            for _ in ours.client.map("work", "echo", ({"value": SMALL} for _ in range(count)), window=IN_FLIGHT):
                pass

        found = rates(run, peer(contestants), COUNT, peer_count)
        meter = ours.meter("work", os.getpid())
        run(COUNT)
        return Measured(*found, cpu=meter.per_call(COUNT))

    return measure


def _executor(contestants: Contestants) -> Run:
    executor = contestants.get("executor")

    def run(count: int) -> None:
        for future in [executor.submit(echo, SMALL) for _ in range(count)]:
            future.result()

    return run


def _pool(contestants: Contestants) -> Run:
    pool = contestants.get("pool")

    def run(count: int) -> None:
        for result in [pool.apply_async(echo, (SMALL,)) for _ in range(count)]:
            result.get()

    return run


def _celery(contestants: Contestants) -> Run:
    contestants.get("celery")
    from benchmarks.peers.celery import echo as task

    def run(count: int) -> None:
        for result in [task.delay(SMALL) for _ in range(count)]:
            result.get(timeout=60)

    return run


def _dirty(contestants: Contestants) -> Run:
    run: Run = contestants.get("dirty").many
    return run


def _ray(contestants: Contestants) -> Run:
    run: Run = contestants.get("ray").many
    return run


WHAT = f"echo of 100 bytes, up to {IN_FLIGHT} in flight"


def _row(name: str, peer: str, start: Callable[[Contestants], Run], count: int, target: float | None) -> Row:
    needs = (name.removeprefix("many-"), "ours")
    return Row(name, WHAT, peer, "calls/s", _beside(start, count), needs, target, smaller=False)


ROWS = (
    _row("many-executor", "ProcessPoolExecutor", _executor, COUNT, 3),
    _row("many-pool", "multiprocessing.Pool", _pool, COUNT, None),
    _row("many-celery", "Celery + Valkey", _celery, 600, 50),
    _row("many-dirty", "gunicorn dirty arbiters", _dirty, 4000, 5),
    _row("many-ray", "Ray actors", _ray, 6000, 8),
)

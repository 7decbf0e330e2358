"""Measure latency and throughput. Contestants alternate in rounds, because machines are noisy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

WARM_UP = 50
ROUNDS = 8

Call = Callable[[], object]
Run = Callable[[int], object]


def medians(ours: Call, peer: Call, count: int) -> tuple[float, float]:
    """The median latencies of sequential calls, in microseconds.

    Rounds alternate, so that other load, such as a contestant's start, affects both equally.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for call in (ours, peer):
        for _ in range(min(WARM_UP, count)):
            call()
    for _ in range(ROUNDS):
        for call, taken in zip((ours, peer), times, strict=True):
            for _ in range(max(1, count // ROUNDS)):
                began = time.perf_counter()
                call()
                taken.append(time.perf_counter() - began)
    return statistics.median(times[0]) * 1e6, statistics.median(times[1]) * 1e6


def rates(ours: Run, peer: Run, ours_count: int, peer_count: int, rounds: int = 3) -> tuple[float, float]:
    """Calls per second of both: the median of alternating rounds. A much slower contestant makes fewer calls."""
    found: tuple[list[float], list[float]] = ([], [])
    contestants = ((ours, ours_count), (peer, peer_count))
    for run, count in contestants:
        run(max(WARM_UP, count // 10))
    for _ in range(rounds):
        for (run, count), rate in zip(contestants, found, strict=True):
            began = time.perf_counter()
            run(count)
            rate.append(count / (time.perf_counter() - began))
    return statistics.median(found[0]), statistics.median(found[1])


def seconds(run: Call) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began

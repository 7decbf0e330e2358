"""How long calls take, and how many go through in a second. Machines are noisy: contestants take turns, in rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

WARM_UP = 50
ROUNDS = 8

Call = Callable[[], object]
Run = Callable[[int], object]


def medians(ours: Call, peer: Call, count: int) -> tuple[float, float]:
    """The medians of calls made one after the other, in microseconds.

    In alternating rounds: what else the machine does, a contestant's own start above all, then meets both alike.
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
    """Calls a second of both, the median of alternating rounds. The counts differ where one is many times slower."""
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

"""How many slots really run at once: the same CPU-bound piece of Python alone, and in all slots together.

1.0 says that one thread runs at a time (a GIL); without one it comes near the number of cores.
"""

from __future__ import annotations

import os
import threading
import time

PIECE_SECONDS = 0.010
ROUNDS = 4
WITH_GIL = 4  # threads are enough to show a factor of 1; more only take their time


def spin(rounds: int) -> int:
    """Pure Python, nothing shared."""
    x = 1
    for _ in range(rounds):
        x = (x * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
    return x


def time_alone(rounds: int) -> float:
    began = time.perf_counter()
    spin(rounds)
    return time.perf_counter() - began


def time_together(rounds: int, threads: int) -> tuple[float, float]:
    """From the moment that all may start to the end of the last; and the processor time of all."""
    gate = threading.Barrier(threads)
    spans: list[tuple[float, float, float]] = []

    def work() -> None:
        gate.wait()
        began, used = time.perf_counter(), time.thread_time()
        spin(rounds)
        spans.append((began, time.perf_counter(), time.thread_time() - used))

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    taken = max(ended for _, ended, _ in spans) - min(began for began, _, _ in spans)
    return taken, sum(used for _, _, used in spans)


def calibrate() -> int:
    """Rounds that take about PIECE_SECONDS here."""
    rounds = 2_000
    while True:
        taken = time_alone(rounds)
        if taken >= PIECE_SECONDS / 4:
            return max(1, int(rounds * PIECE_SECONDS / taken))
        rounds *= 4


def measure(slots: int, *, gil_enabled: bool) -> float:
    """The factor; 1.0 for one slot without measuring."""
    threads = min(slots, (os.cpu_count() or 1) * 2)
    if gil_enabled:
        threads = min(threads, WITH_GIL)
    if threads < 2:
        return 1.0
    rounds = calibrate()
    return round(max(factor(rounds, threads) for _ in range(ROUNDS)), 2)


def factor(rounds: int, threads: int) -> float:
    """One measurement, by two views of which the smaller is near the truth.

    On a busy machine the piece alone may be slow, and the first view then too good; the second takes threads that burn
    processor time on each other for threads that work.
    """
    alone = time_alone(rounds)
    taken, used = time_together(rounds, threads)
    return min(threads * alone / taken, used / taken)

"""How many slots really run at once: the same CPU-bound piece of Python alone, and in all slots together.

1.0 says that one thread runs at a time (a GIL); without one it comes near the number of cores.
"""

from __future__ import annotations

import threading
import time

PIECE_SECONDS = 0.010
ROUNDS = 4
WITH_GIL = 2  # threads are enough to show a factor of 1; more only take their time


def spin(rounds: int) -> int:
    """Pure Python, nothing shared: not even the numbers of its own code.

    CPython 3.13 without a GIL counts the references to a code object's large integers in one place, and threads that
    run one loop with such constants take twice the processor time. Made here, they belong to their thread.
    """
    factor, step, mask = int("1103515245"), int("12345"), int("2147483647")
    x = 1
    for _ in range(rounds):
        x = (x * factor + step) & mask
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


def measure(slots: int, *, cores: int, gil_enabled: bool) -> float:
    """The best of a few rounds; 1.0 for one slot without measuring."""
    threads = min(slots, cores * 2)
    if gil_enabled:
        threads = min(threads, WITH_GIL)
    if threads < 2:
        return 1.0
    rounds = calibrate()
    enough = 0.95 * (1 if gil_enabled else min(threads, cores))  # it cannot get much better: start serving
    best = 0.0
    for _ in range(ROUNDS):
        best = max(best, factor(rounds, threads))
        if best >= enough:
            break
    return round(best, 2)


def factor(rounds: int, threads: int) -> float:
    """One measurement, by two views of which the smaller is near the truth.

    On a busy machine the piece alone may be slow, and the first view then too good; the second takes threads that burn
    processor time on each other for threads that work.
    """
    alone = time_alone(rounds)
    taken, used = time_together(rounds, threads)
    return min(threads * alone / taken, used / taken)

"""Measures how many slots run in parallel: the same CPU-bound piece of Python alone, and in all slots together.

1.0 means that one thread runs at a time (a GIL). Without a GIL the factor comes near the number of cores.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

PIECE_SECONDS = 0.010
ROUNDS = 4
BUSY = 0.2  # share of a piece: with longer waits for a core, the wall clock says nothing
WITH_GIL = 2  # threads show a factor of 1; more would only take longer


def spin(rounds: int) -> int:
    """Run pure Python that shares nothing between threads, not even its constants.

    CPython 3.13 without a GIL counts references to a code object's large integers in one place. Threads that run one
    loop with such constants need twice the CPU time. Integers made here belong to their thread.
    """
    factor, step, mask = int("1103515245"), int("12345"), int("2147483647")
    x = 1
    for _ in range(rounds):
        x = (x * factor + step) & mask
    return x


@dataclass(frozen=True, slots=True)
class Span:
    """How one thread spent the time of its piece, in seconds."""

    began: float
    ended: float
    used: float  # CPU time
    delayed: float  # ready to run while other processes had the cores

    @property
    def own(self) -> float:
        """The time it would need with a core to itself: its work, and waits for other threads of this process."""
        return max(self.used, self.ended - self.began - self.delayed)


def run_piece(rounds: int) -> Span:
    began, used, delayed = time.perf_counter(), time.thread_time(), delay()
    spin(rounds)
    return Span(began, time.perf_counter(), time.thread_time() - used, max(0.0, delay() - delayed))


def delay() -> float:
    """Seconds since its start that this thread was ready without a core; 0 where the kernel does not count them."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as source:
            return int(source.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def run_together(rounds: int, threads: int) -> list[Span]:
    """Run the same piece in each of so many threads, all started at one moment."""
    gate = threading.Barrier(threads)
    spans: list[Span] = []

    def work() -> None:
        gate.wait()
        spans.append(run_piece(rounds))

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return spans


def calibrate() -> int:
    """The number of rounds that takes about PIECE_SECONDS of CPU time on this machine."""
    rounds = 2_000
    while True:
        taken = run_piece(rounds).used
        if taken >= PIECE_SECONDS / 4:
            return max(1, int(rounds * PIECE_SECONDS / taken))
        rounds *= 4


def measure(slots: int, *, cores: int, gil_enabled: bool) -> float:
    """The best of a few measurements; 1.0 for one slot, without measuring."""
    threads = min(slots, cores * 2)
    if gil_enabled:
        threads = min(threads, WITH_GIL)
    if threads < 2:
        return 1.0
    rounds = calibrate()
    enough = 0.95 * (1 if gil_enabled else min(threads, cores))  # it cannot become much better, and calls wait
    best = 0.0
    for _ in range(ROUNDS):
        alone, spans = run_piece(rounds), run_together(rounds, threads)
        best = max(best, taking_turns(alone, spans, cores) if gil_enabled else factor(alone.used, spans, cores))
        if best >= enough:
            break
    return round(best, 2)


def taking_turns(alone: Span, spans: Sequence[Span], cores: int) -> float:
    """The factor with a GIL, by the wall clock.

    A thread that waits for a GIL wakes every five milliseconds to request it. On a busy machine that looks like waiting
    for a core: there the spans give an upper bound only, and the GIL itself gives another. On a quiet machine the
    smaller of two estimates is near the truth: the piece alone may have been slow by chance.
    """
    if sum(span.delayed for span in (alone, *spans)) > BUSY * PIECE_SECONDS:
        return min(1.0, factor(alone.used, spans, cores))
    taken = max(span.ended for span in spans) - min(span.began for span in spans)
    return min(len(spans) * (alone.ended - alone.began), sum(span.used for span in spans)) / taken


def factor(alone: float, spans: Sequence[Span], cores: int) -> float:
    """How many pieces were done in the time of one, from the time that each thread itself spent.

    The wall clock would measure how busy the machine is. Waiting for another thread of this process (mostly for a GIL)
    counts, by `own`; waiting for a core that another process has does not. CPU time that threads cost each other
    counts, by `used`.

    >>> free, waits = Span(0, 1, 1, 0), Span(0, 2, 1, 0)
    >>> factor(1, [free, free], cores=2), factor(1, [waits, waits], cores=2)
    (2.0, 1.0)
    >>> factor(1, [Span(0, 9, 1, 8), Span(0, 5, 1, 4)], cores=2), factor(1, [free] * 4, cores=2)
    (2.0, 2.0)
    """
    needed = max(max(span.own for span in spans), sum(span.used for span in spans) / cores)
    return len(spans) * alone / needed

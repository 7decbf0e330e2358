"""How many slots really run at once: the same CPU-bound piece of Python alone, and in all slots together.

1.0 says that one thread runs at a time (a GIL); without one it comes near the number of cores.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

PIECE_SECONDS = 0.010
ROUNDS = 4
BUSY = 0.2  # share of a piece: more waiting for cores than that, and the wall clock is of no use
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


@dataclass(frozen=True, slots=True)
class Span:
    """How one thread spent the time of its piece, in seconds."""

    began: float
    ended: float
    used: float  # processor time
    delayed: float  # ready to run, but other processes had the cores

    @property
    def own(self) -> float:
        """What it would have taken with a core to itself: its work, and its waits for other threads of ours."""
        return max(self.used, self.ended - self.began - self.delayed)


def run_piece(rounds: int) -> Span:
    began, used, delayed = time.perf_counter(), time.thread_time(), delay()
    spin(rounds)
    return Span(began, time.perf_counter(), time.thread_time() - used, max(0.0, delay() - delayed))


def delay() -> float:
    """Seconds that this thread was ready and had no core, since its start; 0 where the kernel does not say."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as source:
            return int(source.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def run_together(rounds: int, threads: int) -> list[Span]:
    """The same piece in each of so many threads, all let go at one moment."""
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
    """Rounds that take about PIECE_SECONDS of processor time here."""
    rounds = 2_000
    while True:
        taken = run_piece(rounds).used
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
        alone, spans = run_piece(rounds), run_together(rounds, threads)
        best = max(best, taking_turns(alone, spans, cores) if gil_enabled else factor(alone.used, spans, cores))
        if best >= enough:
            break
    return round(best, 2)


def taking_turns(alone: Span, spans: Sequence[Span], cores: int) -> float:
    """The same with a GIL, by the wall clock.

    Who waits for a GIL wakes up every five milliseconds to ask for it, and on a busy machine that looks like waiting
    for a core: there the spans give no more than an upper bound, and the GIL itself gives another. On a quiet one, of
    two views the smaller is near the truth: the piece alone may have been slow by chance.
    """
    if sum(span.delayed for span in (alone, *spans)) > BUSY * PIECE_SECONDS:
        return min(1.0, factor(alone.used, spans, cores))
    taken = max(span.ended for span in spans) - min(span.began for span in spans)
    return min(len(spans) * (alone.ended - alone.began), sum(span.used for span in spans)) / taken


def factor(alone: float, spans: Sequence[Span], cores: int) -> float:
    """How many pieces were done in the time of one, from what each thread itself spent.

    The wall clock would say how busy the machine is. A thread that waits for another of ours (for a GIL above all) is
    late by its own `own`, one whose core was given to another process is not. Threads that burn processor time on
    each other are late by their `used`.

    >>> free, waits = Span(0, 1, 1, 0), Span(0, 2, 1, 0)
    >>> factor(1, [free, free], cores=2), factor(1, [waits, waits], cores=2)
    (2.0, 1.0)
    >>> factor(1, [Span(0, 9, 1, 8), Span(0, 5, 1, 4)], cores=2), factor(1, [free] * 4, cores=2)
    (2.0, 2.0)
    """
    needed = max(max(span.own for span in spans), sum(span.used for span in spans) / cores)
    return len(spans) * alone / needed

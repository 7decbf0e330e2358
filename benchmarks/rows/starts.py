"""N warm workers with a scikit-learn model: forked from a template, spawned, and as threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from benchmarks.row import Contestants, Measured, Row
from benchmarks.starts import Starts, starts, storm

NUMBERS = (1, 10, 100)
ROUNDS = 3
THREADS = 10  # slots of a worker of the thread profile
TARGET = 5.0  # seconds for the largest number
KILLED = 10  # workers of a pool, killed at the same time


@cache
def measured(number: int, way: str) -> Starts:
    """Time and memory of a start: the median of three, or one run if it takes minutes.

    The first start on an idle virtual machine waits until the host returns memory to it.
    """
    if way == "threads":
        return starts(number // THREADS, forked=False, threads=THREADS)
    rounds = 1 if way == "spawned" and number == NUMBERS[-1] else ROUNDS
    found = [starts(number, forked=way == "forked") for _ in range(rounds)]
    return sorted(found, key=lambda one: one.seconds)[rounds // 2]


def _beside(number: int, ours: str, peer: str, figure: str) -> Callable[[Contestants], Measured]:
    def measure(contestants: Contestants) -> Measured:
        return Measured(getattr(measured(number, ours), figure), getattr(measured(number, peer), figure))

    return measure


def _absolute(contestants: Contestants) -> Measured:
    return Measured(measured(NUMBERS[-1], "forked").seconds, TARGET, note="the peer's column is the bar")


def _storm(contestants: Contestants) -> Measured:
    return Measured(storm(KILLED, forked=True), storm(KILLED, forked=False))


def _rows(number: int) -> tuple[Row, Row]:
    most = number == NUMBERS[-1]
    what = f"{number} worker{'s' * (number > 1)} with a model, forked from a template"
    spawned = "spawned plainly"
    return (
        Row(f"start-{number}", what, spawned, "s to ready", _beside(number, "forked", "spawned", "seconds"),
            target=0.05 if most else None),
        Row(f"memory-{number}", what, spawned, "MiB PSS", _beside(number, "forked", "spawned", "memory_mb"),
            target=0.125 if most else None),
    )  # fmt: skip


ROWS = (
    *(row for number in NUMBERS for row in _rows(number)),
    Row("start-100-seconds", "100 workers with a model, forked from a template", "the target", "s to ready", _absolute,
        target=1),
    Row("storm", f"{KILLED} workers with a model, all killed: forked again", "spawned", "s to ready",
        _storm, target=0.1),
    Row("memory-100-threads", f"100 slots as 10 workers of {THREADS} threads", "100 spawned workers", "MiB PSS",
        _beside(100, "threads", "spawned", "memory_mb")),
    Row("start-100-threads", f"100 slots as 10 workers of {THREADS} threads", "100 spawned workers", "s to ready",
        _beside(100, "threads", "spawned", "seconds")),
)  # fmt: skip

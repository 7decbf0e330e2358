"""Threads of one worker without a GIL: concurrent calls, compared with the same calls in sequence."""

from __future__ import annotations

import statistics
from functools import cache, partial
from typing import Any

from benchmarks.node import ENDLESS, ROOT, Node, serving
from benchmarks.row import Contestants, Measured, Row
from benchmarks.timing import seconds
from benchmarks.usage import cpu_seconds
from snakepit.pools.adapters.interpreters.known import InterpreterKeys, Interpreters
from snakepit.pools.broker.spec import AUTO

CALLS = 4
SPINS = 1_000_000  # about a tenth of a second of pure Python
ROUNDS = 5


@cache
def interpreter() -> str:
    """A free-threaded interpreter with the worker's requirements: the one of the tests, or one of this machine."""
    places = InterpreterKeys(venvs=(str(ROOT / ".venv-313t"),), worker_path=(str(ROOT),))
    return Interpreters(places).choose(AUTO, "thread").path


def at_once(node: Node, pool: str) -> list[Any]:
    calls = [node.client.submit(pool, "spin", {"rounds": SPINS}, timeout=600) for _ in range(CALLS)]
    return [call.result(600) for call in calls]


def in_turn(node: Node, pool: str) -> list[Any]:
    return [node.client.call(pool, "spin", {"rounds": SPINS}, timeout=600) for _ in range(CALLS)]


def share(node: Node, pool: str) -> tuple[float, float]:
    """Seconds of CALLS CPU-bound calls, concurrent and in sequence: medians of alternating rounds."""

    at_once(node, pool)
    taken = [(seconds(partial(at_once, node, pool)), seconds(partial(in_turn, node, pool))) for _ in range(ROUNDS)]
    return statistics.median(one for one, _ in taken), statistics.median(two for _, two in taken)


def cost(node: Node, pool: str) -> float:
    """CPU of a call among others, relative to a single call: the contention between threads."""
    (worker,) = node.workers(pool)
    used = [cpu_seconds(worker)]
    for run in (at_once, in_turn):
        run(node, pool)
        used.append(cpu_seconds(worker))
    return (used[1] - used[0]) / (used[2] - used[1])


def pool(name: str, python: str) -> dict[str, Any]:
    fields = {"name": name, "path": "benchmarks.work.Work", "size": 1, "profile": "thread", "threads": CALLS}
    return {**fields, "python": python, **ENDLESS}


def _threads(contestants: Contestants) -> Measured:
    with serving([pool("free", interpreter()), pool("gil", "")]) as node:
        node.wait_until_ready("free", 1)
        node.wait_until_ready("gil", 1)
        ours, peer = share(node, "free")
        gil_ours, gil_peer = share(node, "gil")
        cpu = cost(node, "free")
        says = [node.client.status(name).pools[0].parallel for name in ("free", "gil")]
    note = (
        f"status of the pool: {says[0]}; a concurrent call takes {cpu:.2f} x the CPU of a single one; "
        f"with a GIL the ratio is {gil_ours / gil_peer:.2f}, and the status is: {says[1]}"
    )
    return Measured(ours, peer, note=note)


ROWS = (
    Row(
        "threads",
        "4 concurrent CPU-bound calls in one worker, no GIL",
        "in sequence",
        "s",
        _threads,
        (),
        target=0.6,
    ),
)

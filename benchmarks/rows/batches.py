"""Batches: many small calls of a model as one, compared with one large call and with calls one by one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.node import ENDLESS, Node, serving
from benchmarks.row import Contestants, Measured, Row
from benchmarks.timing import seconds
from snakepit.examples.digits import scans

CALLS = 500
CALLERS = 64
EACH = 40  # calls of a caller
ROUNDS = 9
POOL = {"name": "digits", "path": "benchmarks.batching.Batching", "size": 1, **ENDLESS}


@contextmanager
def digits() -> Iterator[tuple[Node, list[list[float]]]]:
    with serving([POOL]) as node:
        node.wait_until_ready("digits", 1)
        yield node, [[float(value) for value in row] for row in scans()[0][:CALLS]]


def shown(node: Node) -> str:
    (pool,) = node.client.status("digits").pools
    return f"status of the pool: {', '.join(f'{one.command} in {one}' for one in pool.batches)}"


def _map(contestants: Contestants) -> Measured:
    with digits() as (node, rows):
        each = [{"pixels": row} for row in rows]

        def single() -> list[Any]:
            return list(node.client.map("digits", "classify", each))

        def many() -> Any:
            return node.client.call("digits", "classify_many", rows=rows)

        for _ in range(2):
            single(), many()
        taken = [(seconds(single), seconds(many)) for _ in range(ROUNDS)]
        return Measured(
            statistics.median(one for one, _ in taken), statistics.median(two for _, two in taken), note=shown(node)
        )


def load(node: Node, command: str, rows: list[list[float]]) -> tuple[float, float]:
    """Calls a second of CALLERS threads, and the p50 of a call in seconds."""
    taken: list[float] = []

    def caller(number: int) -> None:
        for _ in range(EACH):
            began = time.perf_counter()
            node.client.call("digits", command, pixels=rows[number])
            taken.append(time.perf_counter() - began)

    def run() -> None:
        with ThreadPoolExecutor(CALLERS) as threads:
            list(threads.map(caller, range(CALLERS)))

    rate = CALLERS * EACH / seconds(run)
    return rate, statistics.median(taken)


def _callers(contestants: Contestants) -> Measured:
    with digits() as (node, rows):
        runs = [partial(load, node, command, rows) for command in ("classify", "classify_alone")]
        for run in runs:
            run()
        measured = [[run() for run in runs] for _ in range(3)]
        ours, peer = ([one[place] for one in measured] for place in (0, 1))
        p50 = [statistics.median(wait for _, wait in one) * 1000 for one in (ours, peer)]
        note = f"p50 {p50[0]:.1f} ms, without batches {p50[1]:.1f} ms; {shown(node)}"
        return Measured(
            statistics.median(rate for rate, _ in ours), statistics.median(rate for rate, _ in peer), note=note
        )


ROWS = (
    Row(
        "batch-map",
        f"{CALLS} single calls of a model by map",
        "one call with all inputs",
        "s",
        _map,
        (),
        target=2,
    ),
    Row(
        "batch-callers",
        f"a model, {CALLERS} concurrent callers",
        "the same without batches",
        "calls/s",
        _callers,
        (),
        target=3,
        smaller=False,
    ),
)

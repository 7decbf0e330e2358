"""The forecast of `snakepit scaling`, compared with the measured throughput of real processes."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.node import ENDLESS, Node, serving
from benchmarks.row import Contestants, Measured, Row
from benchmarks.timing import seconds
from snakepit.pools.diagnostics.advice import Enough
from snakepit.pools.diagnostics.scaling import gather, scale

REST = 0.05  # seconds that a call waits, as for I/O
MEASURED, GROWN = 2, 8  # workers of the measured pool, and of the forecast
CALLS, EACH = 200, 100  # measured calls, and calls per worker of the larger pool
ENOUGH = Enough(calls=100, seconds=2.0)  # shorter than in production, because nothing else runs here


def flood(node: Node, pool: str, count: int, window: int) -> None:
    for _ in node.client.map(pool, "rest", ({"seconds": REST} for _ in range(count)), window=window):
        pass


def forecast(node: Node) -> float:
    """Forecast of calls per second of GROWN workers, from the measurement of MEASURED workers."""
    flood(node, "measured", CALLS, MEASURED)
    facts = gather(node.client.status(), "measured")
    size = scale(replace(facts, size=GROWN), ENOUGH).limits[0]
    assert size.calls_per_second, size.evidence
    return size.calls_per_second


def _scaling(contestants: Contestants) -> Measured:
    pools = [{"name": "measured", "size": MEASURED}, {"name": "grown", "size": GROWN}]
    with serving([{**one, "path": "benchmarks.work.Work", **ENDLESS} for one in pools]) as node:
        node.wait_until_ready("measured", MEASURED)
        node.wait_until_ready("grown", GROWN)
        flood(node, "grown", GROWN, GROWN)  # the first call of each
        peer = forecast(node)
        count = EACH * GROWN
        ours = count / seconds(lambda: flood(node, "grown", count, 4 * GROWN))
    return Measured(ours, peer, note=f"measured with {MEASURED} workers, forecast for {GROWN}")


ROWS = (
    Row(
        "scaling",
        f"calls of {REST * 1000:g} ms that wait, {GROWN} workers",
        "the forecast of `snakepit scaling`",
        "calls/s",
        _scaling,
        (),
        target=0.85,
        smaller=False,
    ),
)

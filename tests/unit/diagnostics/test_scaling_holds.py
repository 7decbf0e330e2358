"""What `snakepit scaling` foretells comes true: a broker's pool is brought to the foretold size, and driven.

The broker is the real one, over fakes whose time is counted: calls wait and compute on a machine with so many cores, so
the rate that a pool reaches follows from that machine and not from the one that runs the test.
"""

from __future__ import annotations

from typing import Any

import pytest

from snakepit.pools.diagnostics.advice import Capacity
from snakepit.pools.diagnostics.scaling import CPU, MEMORY, ScalingEstimate, ScalingLimit, gather, scale
from tests.fakes import Cores, play
from tests.unit.broker.test_runner import Stage, pool

BAND = (0.95, 1.01)  # of the foretold rate; no machine does more calls than it has time for
CORES = 4
WAITS, COMPUTES = 0.15, 0.05  # seconds of a call
EACH = 50.0  # MiB of a fake worker
FIELDS: dict[str, Any] = {
    "queue_limit": 1000, "queue_timeout": 60.0, "startup_batch": 64, "startup_delay": 0.0, "max_surge": 64
}  # fmt: skip
CALL = {"waits": WAITS, "computes": COMPUTES}


async def measured(stage: Stage, size: int) -> None:
    """A good minute at half of what the pool can do, with sweeps, which measure CPU time and memory."""
    await stage.ready(size)
    for _ in range(70):
        for _ in range(size * 2):
            stage.submit("works", CALL)
        await stage.pass_time(1.0)


async def rate(stage: Stage, size: int, seconds: float = 20.0) -> float:
    """Calls a second when there is always one more to begin."""
    answers = [stage.submit("works", CALL) for _ in range(2 * size)]
    count, began, until = 0, 0.0, float("inf")
    while stage.clock.now < until:
        await stage.pass_time(0.05)
        for place, answer in enumerate(answers):
            if answer.over:
                assert not answer.code
                answers[place] = stage.submit("works", CALL)
                count += 1
        if not began and count >= 4 * size:  # all are in their stride
            began, until, count = stage.clock.now, stage.clock.now + seconds, 0
    return count / (stage.clock.now - began)


async def grown(stage: Stage, size: int) -> None:
    stage.definitions.change(pool(size=size, **FIELDS))
    await stage.broker.apply()
    await stage.until(lambda: stage.row().ready == size)


def foretold(stage: Stage, free_mb: float) -> ScalingEstimate:
    return scale(gather(stage.broker.snapshot("p"), "p", Capacity(cores=float(CORES), free_mb=free_mb)))


def told(limit: ScalingLimit | None) -> tuple[float, int]:
    assert limit
    assert limit.calls_per_second
    assert limit.workers
    return limit.calls_per_second, limit.workers


@pytest.mark.parametrize(("free_mb", "binds", "size"), [(10_000.0, CPU, 16), (8 * EACH, MEMORY, 10)])
def test_a_pool_of_the_foretold_size_reaches_the_foretold_rate(free_mb: float, binds: str, size: int) -> None:
    stage = Stage((pool(size=2, **FIELDS),), interval=5.0)
    stage.launcher.cores = Cores(CORES)

    async def scenario() -> None:
        await stage.broker.start()
        await measured(stage, 2)
        found = foretold(stage, free_mb)
        assert found.carries, found.lacks
        assert (found.binds, found.carries.resource, found.carries.workers) == ("size", binds, size)
        for limit in (found.limits[0], found.carries):
            calls, workers = told(limit)
            await grown(stage, workers)
            assert BAND[0] <= await rate(stage, workers) / calls <= BAND[1], limit
        # And more workers than that carry no more, where the machine's cores are what binds.
        if binds == CPU:
            await grown(stage, 2 * size)
            assert await rate(stage, 2 * size) / told(found.carries)[0] <= BAND[1]
        await stage.broker.stop(grace=0.0)

    play(scenario(), stage.clock)

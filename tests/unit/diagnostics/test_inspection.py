"""What `snakepit inspect` makes of a status: figures of all pools and each, and the warnings beside them."""

from __future__ import annotations

from typing import Any

from snakepit.pools.cli.inspect import lines
from snakepit.pools.diagnostics.inspection import inspect_pool
from tests.process.integration.fakes import POOL, WORKER

PLAN: dict[str, Any] = {"workers": [], "at_once": 1}
USAGE: dict[str, Any] = {"seconds": 600.0, "answered": 100, "calls_per_second": 2.0}


def inspected(name: str, busy: float, memory: float = 40.0) -> dict[str, Any]:
    row = {**POOL, "name": name, "load_seconds": 0.5, "usage": {**USAGE, "busy": busy}}
    return inspect_pool(row, [{**WORKER, "pool": name, "memory_mb": memory}], PLAN, None, None)


def told(*pools: dict[str, Any]) -> str:
    return "\n".join(
        lines({"pools": list(pools), "worker": "", "judgements": [], "not_known_because": ""}, False, False)
    )


def test_from_four_fifths_on_use_is_a_warning() -> None:
    assert inspected("a", 0.79)["warnings"] == []
    assert inspected("a", 0.8)["warnings"] == ["80% busy over 10 minutes: from 80% on, calls soon wait"]
    assert "  warning       93% busy over 10 minutes" in told(inspected("a", 0.93))


def test_memory_of_the_workers_is_told_from_the_smallest_to_the_largest() -> None:
    row = {**POOL, "load_seconds": 0.5}
    workers = [{**WORKER, "memory_mb": 40.0}, {**WORKER, "memory_mb": 60.0}, {**WORKER, "memory_mb": -1.0}]
    memory = inspect_pool(row, workers, PLAN, None, None)["memory"]
    assert (memory["smallest_mb"], memory["mean_mb"], memory["largest_mb"]) == (40.0, 50.0, 60.0)
    assert inspected("a", 0.1, memory=-1.0)["memory"]["mean_mb"] is None


def test_several_pools_are_summed_up() -> None:
    assert "all pools: 4 of 4 workers ready, 2 of 4 slots free, 161 MiB" in told(
        inspected("a", 0.1), inspected("b", 0.1)
    )
    assert "all pools" not in told(inspected("a", 0.1))

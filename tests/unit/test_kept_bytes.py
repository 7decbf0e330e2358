"""How much memory a worker may keep in files that it writes again."""

from __future__ import annotations

import pytest

from snakepit.pools.adapters.processes.worker_resources import kept_bytes
from snakepit.pools.broker.spec import spec_from

MIB = 2**20


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ({}, 256 * MIB),
        ({"memory_hard_mb": 800.0}, 100 * MIB),
        ({"memory_soft_mb": 400.0, "memory_hard_mb": 800.0}, 50 * MIB),
        ({"memory_soft_mb": 10_000.0}, 256 * MIB),
    ],
)
def test_a_worker_keeps_a_small_part_of_its_memory_limit(limits: dict[str, float], most: int) -> None:
    assert kept_bytes(spec_from({"name": "p", "adapter": "a", **limits})) == most

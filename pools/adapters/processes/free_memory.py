"""Refuses to start a worker while the machine, or the broker's control group, has almost no memory left.

Without this, a pool whose size is too large for the machine makes the kernel end processes, and not always a worker.
A refused start counts as a failed one: the pool tries again later, and the workers that it has serve.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from snakepit.pools.cgroups import memory_limit

# About what a batch of workers that start can take before the next check.
RESERVE = 0.03  # of the memory
LARGEST_RESERVE = 2**31  # bytes, on machines with more than 70 GiB


class MemoryShort(Exception):
    """There is too little memory for one more worker."""


def check_free_memory(root: Path = Path("/")) -> None:
    """Raise MemoryShort below the reserve. `root`: of the file system with the kernel's files."""
    machine = psutil.virtual_memory()
    _check(machine.available, machine.total, "the machine")
    limit, used = memory_limit(root)
    if limit is not None:
        _check(limit - used, limit, "the control group of the broker")


def _check(free: int, total: int, whose: str) -> None:
    reserve = min(RESERVE * total, LARGEST_RESERVE)
    if free < reserve:
        raise MemoryShort(
            f"only {max(0, free) / 2**20:,.0f} MiB of the {total / 2**20:,.0f} MiB of {whose} are free, and no worker "
            f"starts below {reserve / 2**20:,.0f} MiB; give the pools fewer workers, or the machine more memory"
        )

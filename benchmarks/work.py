"""The work to measure, the same for all contestants."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from snakepit.workers import Adapter, Context, command
from snakepit.workers.runtime.parallelism import spin

SMALL = "x" * 98  # 100 bytes as JSON
LARGE = "x" * 99_998  # 100 kB as JSON
CHUNK = "x" * 998  # 1 kB as JSON


def echo(value: str) -> str:
    return value


def burn(seconds: float) -> float:
    """Use the CPU for `seconds` of this thread's CPU time, so that a busy machine does not reduce the work."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


def array_of(size: int) -> Any:
    import numpy as np  # comes with the bench extra

    return np.ones(size // 8)


def sum_of(value: Any) -> float:
    return float(value[0] + value[-1])


def same(value: Any) -> Any:
    return value


def chunks(count: int) -> Iterator[str]:
    for _ in range(count):
        yield CHUNK


class Work(Adapter):
    thread_safe = True

    @command(idempotent=True)
    def echo(self, value: str) -> str:
        return value

    @command(idempotent=True)
    def burn(self, seconds: float) -> float:
        return burn(seconds)

    @command(idempotent=True)
    def spin(self, rounds: int) -> int:
        """A fixed amount of pure Python that shares no data between threads."""
        return spin(rounds)

    @command(idempotent=True)
    def rest(self, seconds: float) -> float:
        """Sleep, like a call that waits for I/O."""
        time.sleep(seconds)
        return seconds

    @command(idempotent=True)
    def array_of(self, size: int) -> Any:
        return array_of(size)

    @command(idempotent=True)
    def placed_array_of(self, size: int, ctx: Context) -> Any:
        """The same, computed in the memory of the result."""
        out = ctx.buffer(size // 8)
        out += 1
        return out

    @command(idempotent=True)
    def same(self, value: Any) -> Any:
        return value

    @command(idempotent=True)
    def sum_of(self, value: Any) -> float:
        return sum_of(value)

    @command
    def chunks(self, count: int) -> Iterator[str]:
        return chunks(count)

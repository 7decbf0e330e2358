"""An adapter that returns and takes large values."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np

from snakepit.workers import Adapter, Context, command


class Large(Adapter):
    thread_safe = True

    @command
    def ones(self, size: int, kind: str = "float64") -> Any:
        """An array of ones of `size` bytes."""
        dtype = np.dtype(kind)
        return np.ones(size // dtype.itemsize, dtype)

    @command
    def placed(self, size: int, keep: bool, ctx: Context) -> Any:
        """The same, computed in the memory of the result; with `keep` the adapter still has it, and writes later."""
        out = ctx.buffer(size // 8)
        out += 1
        if keep:
            self.kept = out
        return {"out": out, "shared": not out.flags.owndata}

    @command
    def write_kept(self) -> float:
        """Write to the array that `placed` kept, after its caller has it."""
        self.kept[:] = 5
        return float(self.kept[0])

    @command
    def too_much(self, size: int, ctx: Context) -> Any:
        return ctx.buffer(size, "uint8")

    @command
    def echo(self, value: Any) -> Any:
        return value

    @command
    def text(self, size: int) -> list[str]:
        return ["x" * 1000] * (size // 1000)

    @command
    def bytes_of(self, size: int) -> bytes:
        return b"x" * size

    @command
    def total(self, value: Any) -> Any:
        return [type(value).__name__, len(value) if isinstance(value, bytes) else float(np.sum(value))]

    @command
    def doubled(self, value: np.ndarray) -> Any:
        value *= 2
        return value

    @command
    def parts(self, value: np.ndarray, count: int) -> Iterator[float]:
        for part in np.split(value, count):
            yield float(part.sum())

    @command
    def frames(self, sizes: list[int], ctx: Context, placed: bool = False, pause: float = 0.0) -> Iterator[Any]:
        """Arrays of so many bytes, the first of zeros, the second of ones."""
        for number, size in enumerate(sizes):
            frame = ctx.buffer(size // 8) if placed else np.empty(size // 8)
            frame[:] = number
            yield frame
            frame[:] = -1  # the reader has its own
            ctx.wait(pause)

    @command
    def told(self, size: int, ctx: Context) -> Any:
        ctx.log("a line")
        ctx.progress(0.5, "half")
        return self.ones(size)

    @command
    async def aframes(self, sizes: list[int]) -> AsyncIterator[Any]:
        for number, size in enumerate(sizes):
            yield {"number": number, "frame": np.full(size // 8, float(number))}

    @command
    def keep(self, value: Any) -> None:
        """Hold a value, unread, until the next one comes."""
        self.kept = value

    @command
    def kept_and(self, value: Any) -> tuple[float, float]:
        """The sums of the value that `keep` holds, and of this one."""
        return float(self.kept.sum()), float(value.sum())

    @command
    def slow(self, size: int, seconds: float, value: Any = None) -> Any:
        time.sleep(seconds)
        return np.ones(size // 8)

    @command
    def linger(self, value: Any, ctx: Context) -> None:
        """Run until the call is cancelled."""
        while not ctx.wait(60):
            pass

    @command
    def hold(self, path: str) -> str:
        """Run until something opens the pipe for writing."""
        with open(path, "rb"):
            return "released"

    @command
    def descriptors(self) -> int:
        """How many memory files of buffers this worker holds."""
        return memory_files(os.getpid())


def memory_files(pid: int) -> int:
    """How many memory files of buffers a process holds."""
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += "snakepit buffer" in os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
    return found

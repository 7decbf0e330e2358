"""The adapter whose workers the faults meet."""

from __future__ import annotations

import gc
import os
import random
import socket
import time
from collections.abc import Iterator
from typing import Any

from snakepit.workers import Adapter, Context, command
from snakepit.workers.transport.message_stream import MessageStream


class Target(Adapter):
    thread_safe = True

    @command(idempotent=True)
    def double(self, number: int, seconds: float = 0.0) -> int:
        """Return twice the number, after a rest. Idempotent: it may run again after its worker's death."""
        time.sleep(seconds)
        return 2 * number

    @command
    def once(self, number: int, seconds: float = 0.0) -> int:
        """As `double`, not idempotent."""
        time.sleep(seconds)
        return 2 * number

    @command
    def obey(self, ctx: Context, seconds: float) -> bool:
        """Wait, and end early when the call is cancelled."""
        return ctx.wait(seconds)

    @command
    def count(self, to: int, size: int = 1) -> Iterator[str]:
        """Yield chunks of `size` characters."""
        for _ in range(to):
            yield "x" * size

    @command
    def mirror(self, ctx: Context, value: Any, placed: bool, seconds: float) -> Any:
        """Return an array as it came, or a copy that was made in shared memory."""
        time.sleep(seconds)
        if not placed:
            return value
        out = ctx.buffer(value.shape, value.dtype)
        out[:] = value
        return out

    @command
    def mirrors(self, ctx: Context, value: Any, placed: bool, count: int) -> Iterator[Any]:
        """The same as a stream of this many arrays."""
        for _ in range(count):
            yield self.mirror(ctx, value, placed, 0.0)

    @command
    def shout(self, lines: int, size: int) -> int:
        """Print lines of this size, then as many bytes without a line end that are no text."""
        for _ in range(lines):
            print("x" * size)
        left = memoryview(b"\xff" * size)
        while left:
            left = left[os.write(1, left) :]
        return lines

    @command
    def corrupt(self, kind: str, seed: int) -> int:
        """Write what is no report into this worker's link to its broker. Return how many bytes."""
        from benchmarks.faults.frames import flipped, frames, reports

        chance = random.Random(seed)
        if kind == "messages":
            (link,) = (one for one in gc.get_objects() if isinstance(one, MessageStream))
            sent = flipped(reports(chance), chance)
            vars(link)["_loop"].call_soon_threadsafe(link.send, sent)
        else:
            sent = chance.randbytes(1000) if kind == "bytes" else frames(chance)
            with socket.socket(fileno=os.dup(self._link())) as link_socket:
                link_socket.send(sent)
        time.sleep(0.05)  # the broker ends this worker meanwhile, if it is to
        return len(sent)

    @staticmethod
    def _link() -> int:
        (link,) = (one for one in gc.get_objects() if isinstance(one, MessageStream))
        return int(vars(link)["_raw"].descriptor())


class Preloaded(Target):
    """The same, forked from a template."""

    numbers: list[int] = []

    @classmethod
    def preload(cls) -> None:
        cls.numbers = list(range(1000))

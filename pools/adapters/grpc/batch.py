"""What is said in one turn of the event loop, as one protobuf message that is built in place and serialised once.

message.orders.add() ... ─ posted(size) ─▶ [message] ─ next turn ─▶ MessageStream
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from google.protobuf.message import Message

from snakepit.workers.transport.message_stream import BATCH_BYTES, MessageStream

M = TypeVar("M", bound=Message)
AROUND = 64  # bytes that a part weighs besides its payload, about


class Batch(Generic[M]):
    """`message` takes what is to be said; each addition is followed by `posted`, on the loop's thread."""

    __slots__ = ("_frames", "_loop", "_make", "_scheduled", "_size", "message")

    def __init__(self, make: Callable[[], M]) -> None:
        self._make = make
        self.message = make()
        self._size = 0
        self._frames: MessageStream | None = None
        self._loop = asyncio.get_running_loop()
        self._scheduled = False

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""
        return self._size + (self._frames.waiting if self._frames else 0)

    def open(self, frames: MessageStream) -> None:
        """The stream is there; what was said before goes out."""
        self._frames = frames
        self._flush()

    def posted(self, size: int) -> None:
        """A part with a payload of so many bytes was added."""
        self._size += size + AROUND
        if self._size > BATCH_BYTES:
            self._flush()
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def sent(self, size: int) -> None:
        """As `posted`, for a part that somebody waits for alone: nothing that is worth waiting for comes behind it."""
        self._size += size + AROUND
        self._flush()

    def _flush(self) -> None:
        self._scheduled = False
        if self._frames is not None and self._size:
            message, self.message, self._size = self.message, self._make(), 0
            self._frames.send(message.SerializeToString())

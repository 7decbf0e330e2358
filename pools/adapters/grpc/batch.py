"""The orders or replies of one turn of the event loop, as one protobuf message: built in place, serialised once.

message.orders.add() ... ─ added(size) ─▶ [message] ─ end of the turn ─▶ MessageStream
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from google.protobuf.message import Message

from snakepit.workers.transport.message_stream import BATCH_BYTES, MessageStream

M = TypeVar("M", bound=Message)
MAX_MESSAGE = 2**28 + 2**24  # bytes of one that arrives: the largest max_payload, and room for what is around it
OVERHEAD = 64  # bytes that a part has besides its payload, about


class Batch(Generic[M]):
    """`message` collects the parts; call `added` after each, on the loop's thread."""

    __slots__ = ("_loop", "_make", "_scheduled", "_size", "_stream", "message")

    def __init__(self, make: Callable[[], M]) -> None:
        self._make = make
        self.message = make()
        self._size = 0
        self._stream: MessageStream | None = None
        self._loop = asyncio.get_running_loop()
        self._scheduled = False

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""
        return self._size + (self._stream.waiting if self._stream else 0)

    def open(self, stream: MessageStream) -> None:
        """Send from now on, beginning with what was added before."""
        self._stream = stream
        self._flush()

    def added(self, size: int, *, urgent: bool = False) -> None:
        """Note a part with a payload of `size` bytes. `urgent`: a caller waits for it alone, so send it now."""
        self._size += size + OVERHEAD
        if urgent or self._size > BATCH_BYTES:
            self._flush()
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._stream is not None and self._size:
            message, self.message, self._size = self.message, self._make(), 0
            self._stream.send(message.SerializeToString())

"""Serialised protobuf messages, both ways, on one long-lived stream of grpclib, of a client or of a server.

    send ─ room? ─▶ FastStream or PublicStream ─▶ transport           peer ─▶ FastStream or PublicStream ─▶ on_message
             └ none ─▶ [messages] ─ one task, as the peer makes room ─▶

Serialised protobuf messages put one after the other are their sum, so everything that waits travels as one message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from snakepit.workers.transport.fast_path_check import has_fast_path
from snakepit.workers.transport.grpclib_internals import FastStream, MessageTooLarge, limit_messages
from snakepit.workers.transport.oversize import Oversize

M = TypeVar("M", bound=Message)

BATCH_BYTES = 1 << 20  # of joined messages, beyond the first
SETTLE_TURNS = 3  # of the loop, in which asyncio reads what has arrived, and the end of a connection, and reports it
OVERHEAD = 64  # bytes that a part of a batch has besides its payload, about
PUBLIC_TURNS = SETTLE_TURNS + 2  # of the loop until PublicStream has written a message


class RawStream(Protocol):
    """What FastStream and PublicStream have in common."""

    def open(self) -> None: ...

    async def ended(self) -> None: ...

    def is_closing(self) -> bool: ...

    @property
    def writes_now(self) -> bool:
        """Whether `write_now` can succeed; if not, only `write` sends."""
        ...

    def hung_up(self) -> bool:
        """Whether the connection has ended, though the loop may not have read that yet."""
        ...

    def write_now(self, message: bytes) -> bool: ...

    async def write(self, message: bytes) -> None: ...

    async def settle(self) -> None: ...

    def descriptor(self) -> int: ...


class PublicStream:
    """A stream through grpclib's public API: slower, since grpclib parses each message too, and builds it again."""

    writes_now = False

    def __init__(self, stream: Any, sends: type[Message], on_message: Callable[[bytes], None], limit: int) -> None:
        self._stream = stream
        self._sends = sends
        self._on_message = on_message
        self._limit = limit
        self._over = False
        limit_messages(stream, limit)  # where that is possible; else the limit holds once a message is buffered

    def open(self) -> None:
        """Messages are handed over while `ended` waits."""

    async def ended(self) -> None:
        """Hand over messages until the peer ends the stream; raises what was wrong with them."""
        try:
            while (message := await self._stream.recv_message()) is not None:
                if (size := message.ByteSize()) > self._limit:
                    raise MessageTooLarge(f"a message of {size:,} bytes arrived; the limit is {self._limit:,}")
                self._on_message(message.SerializeToString())
        finally:
            self._over = True

    def is_closing(self) -> bool:
        return self._over

    def hung_up(self) -> bool:
        return self._over

    def write_now(self, message: bytes) -> bool:
        """Return False: only a coroutine can write here."""
        return False

    async def write(self, message: bytes) -> None:
        await self._stream.send_message(self._sends.FromString(message))

    async def settle(self) -> None:
        """Let the loop read what a peer sent that has closed the connection; nothing else can show that here."""
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)

    def descriptor(self) -> int:
        """Return -1: grpclib shows no socket."""
        return -1


def raw_stream(
    stream: Any, sends: type[Message], on_message: Callable[[bytes], None], limit: int, oversize: Oversize | None = None
) -> RawStream:
    """Wrap a grpclib stream: the fast path where it works, else the public API.

    `sends`: the type of the messages that are written. `limit` bounds one incoming message, in bytes.
    """
    if has_fast_path(stream):
        return FastStream(stream, on_message, limit, oversize)
    return PublicStream(stream, sends, on_message, limit)


class MessageStream:
    """Both directions of a stream, with a queue for what the peer has no room for. Used on the loop's thread."""

    def __init__(
        self, stream: Any, sends: type[Message], on_message: Callable[[bytes], None], limit: int,
        oversize: Oversize | None = None,
    ) -> None:  # fmt: skip
        self._stream = stream
        self._raw = raw_stream(stream, sends, on_message, limit, oversize)
        self._loop = asyncio.get_running_loop()
        self._queue: deque[bytes] = deque()
        self._writer: asyncio.Task[None] | None = None
        self.waiting = 0  # bytes that are not written yet

    def open(self) -> None:
        """Hand over messages from now on, beginning with those that arrived before.

        Not part of the constructor: a message that is answered immediately needs the finished object.
        """
        self._raw.open()

    async def ended(self) -> None:
        """Wait for the peer's end of the stream; raises what was wrong with its messages."""
        await self._raw.ended()

    def send(self, message: bytes) -> None:
        """Send a serialised message now, or queue it as long as the peer has no room."""
        if not self._queue and self._writer is None and self._raw.write_now(message):  # nearly always
            return
        if self._raw.is_closing():
            return  # the stream's end reports it
        self._queue.append(message)
        self.waiting += len(message)
        if self._writer is None:
            self._writer = self._loop.create_task(self._write_queue())

    async def drained(self) -> None:
        """Wait until the transport has every message."""
        if self._writer is not None:
            await asyncio.wait({self._writer})

    async def end(self) -> None:
        """End the stream as a server: the trailers of a call that succeeded."""
        await self._stream.send_trailing_metadata()

    def close(self) -> None:
        """Drop what was not written."""
        if self._writer is not None:
            self._writer.cancel()
        self._queue.clear()

    async def _write_queue(self) -> None:
        try:
            await self._raw.settle()  # a write to a dead peer would drop what it sent before
            while self._queue:
                message = self._joined()
                if not self._raw.write_now(message):
                    await self._raw.write(message)
                self.waiting -= len(message)
        except Exception:
            self._queue.clear()  # the stream has ended; its end reports the reason
        finally:
            self._writer = None

    def _joined(self) -> bytes:
        queue = self._queue
        chosen = [queue.popleft()]
        size = len(chosen[0])
        while queue and size + len(queue[0]) <= BATCH_BYTES:
            size += len(queue[0])
            chosen.append(queue.popleft())
        return b"".join(chosen) if len(chosen) > 1 else chosen[0]


class Batch(Generic[M]):
    """The parts of one turn of the loop as one message, built in place and serialised once.

        batch.message.orders.add() ... ─ added(size) ─▶ end of the turn ─▶ MessageStream

    `message` collects the parts; call `added` after each, on the loop's thread.
    """

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

    def close(self) -> None:
        """Send what waits, and nothing that is added later."""
        self._flush()
        self._stream = None

    def _flush(self) -> None:
        self._scheduled = False
        if self._stream is not None and self._size:
            message, self.message, self._size = self.message, self._make(), 0
            self._stream.send(message.SerializeToString())

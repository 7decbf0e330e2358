"""Messages on one gRPC stream, without a task switch for each.

    data_received ─▶ h2 ─▶ Arrivals.add ─▶ on_message        put ─▶ [parts] ─▶ one write a turn of the loop ─▶ h2

grpclib hands each message through several coroutines, which costs more than the message itself. A stream that lives
as long as its connection and carries thousands of messages a second is worth a shorter way: what arrives is parsed
the moment its last byte is there, and what is sent goes out at once where the transport has room. Serialised protobuf
messages put one after the other are their sum, so everything that waits travels as one.

This works on the inside of a grpclib stream, client's or server's, and imports nothing of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from snakepit.workers.transport.direct_read import DirectRead
from snakepit.workers.transport.http2_fast_path import Http2FastPath, write_plain

PREFIX = 5  # bytes before each message: a flag and the length
BATCH_BYTES = 1 << 20  # beyond its first part


def framed(message: bytes) -> bytes:
    """A message as gRPC sends it: not compressed, its length, itself.

    >>> framed(b"abc").hex(" ")
    '00 00 00 00 03 61 62 63'
    """
    return b"\0" + len(message).to_bytes(4, "big") + message


class MessageTooLarge(ValueError):
    """The peer announced a message that is larger than any it may send."""


class Arrivals:
    """Stands in for grpclib's receive buffer: hands over each message as soon as it is whole."""

    def __init__(self, acknowledge: Callable[[int], None], on_message: Callable[[bytes], None], limit: int) -> None:
        self._acknowledge = acknowledge
        self._on_message = on_message
        self._limit = limit
        self._data = bytearray()
        self._ended = asyncio.Event()
        self._error: Exception | None = None

    def add(self, data: bytes, ack_size: int) -> None:
        """What came through grpclib."""
        self._acknowledge(ack_size)
        self.take(data)

    def take(self, data: bytes | memoryview) -> None:
        if self._error is not None:
            return
        try:
            if not self._data:  # nearly always: whole messages, which need no buffer
                end = self._parse(data)
                if end < len(data):
                    self._data += data[end:]
                return
            self._data += data
            with memoryview(self._data) as view:  # one copy of a message, where the slice of a bytearray makes two
                end = self._parse(view)
            del self._data[:end]
        except Exception as error:  # raised from here, it would end as a log line of the event loop
            self._error = error
            self._data = bytearray()
            self._ended.set()

    def _parse(self, buffer: bytes | memoryview) -> int:
        """Hand over the whole messages at the beginning; where they end."""
        start, size = 0, len(buffer)
        while size - start >= PREFIX:
            length = int.from_bytes(buffer[start + 1 : start + PREFIX], "big")
            if length > self._limit:
                raise MessageTooLarge(f"a message of {length:,} bytes; {self._limit:,} are let through")
            if buffer[start]:
                raise ValueError("a compressed message; none was agreed upon")
            end = start + PREFIX + length
            if end > size:
                break
            self._on_message(bytes(buffer[start + PREFIX : end]))
            start = end
        return start

    def eof(self) -> None:
        self._ended.set()

    async def read(self, size: int) -> bytes:
        """What grpclib's `recv_message` waits on: nothing ever comes this way but the end."""
        await self._ended.wait()
        if self._error is not None:
            raise self._error
        return b""

    def unacked_size(self) -> int:
        return 0


class MessageStream:
    """Both directions of a stream. `limit` bounds one incoming message, in bytes.

    With `ears` messages may be handed over while the loop does not run: `on_message` must not ask for it.
    """

    def __init__(
        self, stream: Any, on_message: Callable[[bytes], None], limit: int, ears: DirectRead | None = None
    ) -> None:
        raw = stream._stream
        self._stream = stream
        self._raw = raw
        self._transport = raw._transport
        self._ears = ears
        self._loop = asyncio.get_running_loop()
        self._parts: deque[bytes] = deque()
        self._scheduled = False
        self._pump: asyncio.Task[None] | None = None
        self.waiting = 0  # bytes that are not written yet
        connection, number = raw.connection, raw.id
        self._arrivals = Arrivals(lambda size: connection.ack(number, size), on_message, limit)

    def open(self) -> None:
        """From now on messages are handed over; those that came before, at once.

        Not part of the constructor: a message that is answered at once needs the finished object to answer with.
        """
        early, self._raw.buffer = self._raw.buffer, self._arrivals
        # A server's handler starts a turn later than its stream: the first messages may be in the buffer already.
        while not early._unacked.empty():
            data, _, ack_size = early._unacked.get_nowait()
            if ack_size:
                self._arrivals.add(data, ack_size)
        if early._eof:
            self._arrivals.eof()
        else:
            Http2FastPath(self._raw, self._arrivals.take, self._ears)

    async def ended(self) -> None:
        """Wait for the peer's end of the stream. Raises what was wrong with its messages."""
        await self._arrivals.read(0)

    def put(self, message: bytes) -> None:
        """Send a serialised message, with all others of this turn of the loop. On the loop's thread."""
        self._parts.append(message)
        self.waiting += len(message)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def send(self, message: bytes) -> None:
        """Send a serialised message now. On the loop's thread."""
        free = not self._parts and self._pump is None and not self._transport.is_closing()
        if free and write_plain(self._raw, framed(message)):  # nearly always
            return
        self._parts.append(message)
        self.waiting += len(message)
        self.flush()

    def flush(self) -> None:
        """Send what waits now, as far as there is room; the rest follows as the peer takes it."""
        self._scheduled = False
        if self._pump is not None or self._transport.is_closing():
            return
        while self._parts:
            frame = self._next_frame()
            if not self._write(frame):
                self._pump = self._loop.create_task(self._drain(frame))
                return

    async def drained(self) -> None:
        """Wait until everything that was put is with the transport."""
        self.flush()
        if self._pump is not None:
            await asyncio.wait({self._pump})

    async def end(self) -> None:
        """Say that nothing more comes, as a server: the trailers of a call that went well."""
        await self._stream.send_trailing_metadata()

    def close(self) -> None:
        """Forget what was not sent."""
        if self._pump is not None:
            self._pump.cancel()
        self._parts.clear()

    def _next_frame(self) -> bytes:
        parts = self._parts
        batch = parts.popleft()
        if parts:
            chosen, size = [batch], len(batch)
            while parts and size + len(parts[0]) <= BATCH_BYTES:
                size += len(parts[0])
                chosen.append(parts.popleft())
            batch = b"".join(chosen)
        return framed(batch)

    def _write(self, frame: bytes) -> bool:
        if not write_plain(self._raw, frame):
            return False
        self.waiting -= len(frame) - PREFIX
        return True

    async def _drain(self, frame: bytes) -> None:
        try:
            while True:
                await self._raw.send_data(frame)
                self.waiting -= len(frame) - PREFIX
                if not self._parts:
                    return
                frame = self._next_frame()
        except Exception:
            self._parts.clear()  # the stream has ended; whoever waits on it is told by its own end
        finally:
            self._pump = None

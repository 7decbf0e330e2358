"""Every private name of grpclib and h2 that Snakepit uses.

    transport ─▶ FrameReader ─ DATA frames of the stream ─▶ MessageBuffer ─ whole messages ─▶ on_message
                    └───────── every other frame, in order ─────▶ grpclib ─▶ h2

    FastStream.write_now ─ DATA frames ─▶ transport

grpclib passes each message through several coroutines, and h2 handles any frame in any state: a message of a hundred
bytes costs 25 µs to send and 50 µs to receive. On a long-lived stream nearly every frame is the same: type DATA, no
flags, this stream. This module reads and writes those frames itself: the header of nine bytes and both flow control
windows. The numbers of h2 stay correct, and h2 still receives every other frame. fast_path_check.py tries all of it
once in memory. If that fails, or SNAKEPIT_FAST_PATH is 0, streams use the public API instead (message_stream.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import weakref
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from grpclib.config import Configuration
from grpclib.metadata import decode_metadata

from snakepit.workers.transport.frames import (
    HEADER,
    PREFIX,
    data_frames,
    framed,
    pack_head,
    plain_header,
    read_length,
    read_prefix,
)
from snakepit.workers.transport.oversize import Oversize
from snakepit.workers.transport.own_files import is_same, of_transport

READ_BYTES = 1 << 16
LARGE = 1 << 12  # received bytes from which a memoryview is cheaper than copies of slices
HANGUP = select.POLLHUP | getattr(select, "POLLRDHUP", 0)
ACCOUNT_BYTES = 1 << 18  # received bytes after which h2's windows are updated

logger = logging.getLogger("snakepit.transport")


class MessageTooLarge(ValueError):
    """The peer announced a message that is larger than any it may send."""


class MessageBuffer:
    """Replaces grpclib's receive buffer of one stream: hands over each message when its last byte arrives."""

    def __init__(
        self, acknowledge: Callable[[int], None], on_message: Callable[[bytes], None], limit: int,
        oversize: Oversize | None = None,
    ) -> None:  # fmt: skip
        self._oversize, self._skip = oversize, 0  # bytes of a refused message that are still to come
        self._acknowledge = acknowledge
        self._on_message = on_message
        self._limit = limit
        self._data = bytearray()
        self._ended = asyncio.Event()
        self.error: Exception | None = None

    def feed(self, data: bytes | memoryview) -> None:
        if self.error is not None:
            return
        if self._skip:
            passed = min(self._skip, len(data))
            self._skip, data = self._skip - passed, data[passed:]
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
        except Exception as error:  # `read` raises it; raised here, it would only become a log line of the event loop
            self.error = error
            self._data = bytearray()
            self._ended.set()

    def _parse(self, buffer: bytes | memoryview) -> int:
        """Hand over the whole messages at the beginning; return where they end."""
        start, size = 0, len(buffer)
        while size - start >= PREFIX:
            compressed, length = read_prefix(buffer, start)
            if length > self._limit:
                raise MessageTooLarge(f"a message of {length:,} bytes arrived; the limit is {self._limit:,}")
            if compressed:
                raise ValueError("a compressed message arrived; compression was not negotiated")
            end = start + PREFIX + length
            if end > size:
                if self._oversize and self._oversize.takes_over(buffer[start + PREFIX :], length):
                    self._skip, start = end - size, size
                break
            self._on_message(bytes(buffer[start + PREFIX : end]))
            start = end
        return start

    # What grpclib calls.

    def add(self, data: bytes, ack_size: int) -> None:
        self._acknowledge(ack_size)
        self.feed(data)

    def eof(self) -> None:
        self._ended.set()

    async def read(self, size: int) -> bytes:
        """Wait for the end of the stream: grpclib's `recv_message` waits here and never receives a message."""
        await self._ended.wait()
        if self.error is not None:
            raise self.error
        return b""

    def unacked_size(self) -> int:
        return 0


class FrameReader(asyncio.Protocol):
    """Takes the place of grpclib's protocol on a transport and passes on what it does not handle itself."""

    def __init__(self, raw: Any, on_data: Callable[[bytes | memoryview], None]) -> None:
        self._inner = raw._transport.get_protocol()
        self._raw = raw
        self._h2 = raw._h2_connection
        self._stream = self._h2.streams[raw.id]
        self._expected = plain_header(raw.id)
        self._on_data = on_data
        self._unaccounted = 0
        self._left = 0  # bytes of a frame of this stream that are still to come
        self._head = b""  # the beginning of a frame's header
        self._known = of_transport(raw._transport)
        raw._transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        if rest := self._take(data):
            self._inner.data_received(rest)

    def _take(self, data: bytes) -> bytes:
        """Hand over the frames of this stream, also an incomplete one; return what begins with another frame."""
        if self._h2.incoming_buffer._data:  # h2 has the beginning of a frame, so it needs the end too
            return data
        if self._head:
            data, self._head = self._head + data, b""
        at, size = 0, len(data)
        parts = memoryview(data) if size >= LARGE else data
        if left := self._left:
            at = min(left, size)
            self._left = left - at
            self._unaccounted += at
            self._on_data(parts[:at])
        while size - at >= HEADER and data[at + 3 : at + HEADER] == self._expected:
            high, low = read_length(data, at)
            length = high << 8 | low
            if length > self._h2.max_inbound_frame_size:
                break
            start = at + HEADER
            at = start + length if start + length <= size else size
            self._left = start + length - at
            self._unaccounted += at - start
            self._on_data(parts[start:at])
        rest = data[at:] if at else data
        if len(rest) < HEADER:  # the next bytes will show which stream it is of
            self._head, rest = rest, b""
        if rest or self._unaccounted >= ACCOUNT_BYTES:
            self._account()
        return rest

    def _account(self) -> None:
        """Note in h2's windows what arrived, as h2 would have done frame by frame, and return the room to the peer."""
        size, self._unaccounted = self._unaccounted, 0
        if not size:
            return
        self._h2._inbound_flow_control_window_manager.window_consumed(size)  # raises when the peer sent too much
        self._stream._inbound_window_manager.window_consumed(size)
        self._raw.connection.ack(self._raw.id, size)

    def eof_received(self) -> bool | None:
        ended: bool | None = self._inner.eof_received()
        return ended

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._read_rest()
        self._inner.connection_lost(exc)

    def _read_rest(self) -> None:
        """Read what the peer sent before it died.

        When a write fails, the transport closes and leaves unread bytes in its socket, which is still open here.
        """
        socket = self._raw._transport.get_extra_info("socket")
        if socket is None or self._raw._transport.get_extra_info("sslcontext") is not None:
            return
        with contextlib.suppress(Exception):  # nothing is left, or h2 finds a protocol error
            while is_same(socket.fileno(), self._known) and (data := os.read(socket.fileno(), READ_BYTES)):
                if rest := self._take(data):
                    self._inner.data_received(rest)


# One receive buffer for all connections of a loop: the bytes are copied before the loop reads again.
_buffers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = weakref.WeakKeyDictionary()


class BufferedFrameReader(FrameReader, asyncio.BufferedProtocol):
    """For asyncio's own loop, which allocates 256 KiB for each read of a plain protocol, also for a hundred bytes."""

    def __init__(self, raw: Any, on_data: Callable[[bytes | memoryview], None]) -> None:
        loop = asyncio.get_running_loop()
        if (buffer := _buffers.get(loop)) is None:
            buffer = _buffers[loop] = memoryview(bytearray(READ_BYTES))
        self._buffer = buffer
        super().__init__(raw, on_data)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if rest := self._take(bytes(self._buffer[:nbytes])):
            self._inner.data_received(rest)


class FastStream:
    """A long-lived grpclib stream, of a client or a server, whose DATA frames bypass grpclib and h2."""

    writes_now = True

    def __init__(
        self, stream: Any, on_message: Callable[[bytes], None], limit: int, oversize: Oversize | None = None
    ) -> None:
        raw = stream._stream
        self._stream = stream
        self._raw = raw
        self._transport = raw._transport
        connection, number = raw.connection, raw.id
        self._header = plain_header(number)
        self._messages = MessageBuffer(lambda size: connection.ack(number, size), on_message, limit, oversize)
        self._hangup = select.poll()
        if (descriptor := self.descriptor()) >= 0:
            self._hangup.register(descriptor, HANGUP)

    def open(self, reader: type[FrameReader] | None = None) -> None:
        """Hand over messages from now on, and those that arrived before.

        A server's handler starts one turn of the loop after its stream: its first messages may have arrived already.
        """
        early, self._raw.buffer = self._raw.buffer, self._messages
        while not early._unacked.empty():
            data, _, ack_size = early._unacked.get_nowait()
            if ack_size:
                self._messages.add(data, ack_size)
        if early._eof:
            self._messages.eof()
            return
        if reader is None:
            own = isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
            reader = BufferedFrameReader if own else FrameReader
        reader(self._raw, self._messages.feed)

    async def ended(self) -> None:
        """Wait for the peer's end of the stream; raises what was wrong with its messages."""
        await self._stream.recv_message()

    def is_closing(self) -> bool:
        closing: bool = self._transport.is_closing()
        return closing

    def hung_up(self) -> bool:
        # The loop closes a transport whose reader was interrupted.
        return self._messages.error is not None or self._transport.is_closing() or bool(self._hangup.poll(0))

    def write_now(self, message: bytes) -> bool:
        """Write a message, if both windows and the transport have room for all of it. False: nothing was written."""
        raw, size = self._raw, PREFIX + len(message)
        h2 = raw._h2_connection
        stream = h2.streams.get(raw.id)
        if (
            stream is None
            or stream.closed
            or size > h2.outbound_flow_control_window
            or size > stream.outbound_flow_control_window
            or not raw.connection.write_ready.is_set()
            or self._transport.is_closing()
        ):
            return False
        h2.outbound_flow_control_window -= size
        stream.outbound_flow_control_window -= size
        before = h2.data_to_send()  # usually empty; what h2 has queued goes first
        if size <= h2.max_outbound_frame_size:
            head = pack_head(size >> 16, size & 0xFFFF, self._header, 0, size - PREFIX)
            self._transport.write(before + head + message)
        else:
            self._transport.write(before + b"".join(data_frames(raw.id, framed(message), h2.max_outbound_frame_size)))
        return True

    async def write(self, message: bytes) -> None:
        """Write a message as fast as the peer makes room for it."""
        await self._raw.send_data(framed(message))

    async def settle(self) -> None:
        """Nothing to wait for: `hung_up` shows whether the peer has closed the connection."""

    def descriptor(self) -> int:
        """Return the number of the socket; -1: there is none."""
        made = self._transport.get_extra_info("socket")
        return -1 if made is None else int(made.fileno())


def limit_messages(stream: Any, limit: int) -> None:
    """Make a grpclib stream raise MessageTooLarge above `limit` bytes, before it buffers them.

    grpclib has no option for this: it reads a length and then waits for that many bytes, up to 4 GiB. It calls
    `recv_data` of the HTTP/2 stream once for the header and once for the body. Without that name nothing is limited.
    """
    raw = getattr(stream, "_stream", None)
    receive = getattr(raw, "recv_data", None)
    if raw is None or receive is None:
        return

    async def recv_data(size: int) -> bytes:
        if size > limit:
            raise MessageTooLarge(f"a message of {size:,} bytes arrived; the limit is {limit:,}")
        data: bytes = await receive(size)
        return data

    raw.recv_data = recv_data


def received_metadata(stream: Any) -> Mapping[str, Any]:
    """Return the metadata of a client's stream that ended with an error.

    When a reset directly follows the trailers, grpclib raises the error without them. They are in the HTTP/2 stream.
    """
    if stream.trailing_metadata is not None:
        known: Mapping[str, Any] = stream.trailing_metadata
        return known
    raw = getattr(stream, "_stream", None)  # None: the stream was never opened
    headers = getattr(raw, "trailers", None) or getattr(raw, "headers", None)
    return decode_metadata(headers) if headers else {}


KEEPALIVE = {
    "_keepalive_time": 10.0,
    "_keepalive_timeout": 20.0,
    "_http2_max_pings_without_data": 0,
    "_http2_min_sent_ping_interval_without_data": 5.0,
}


def configuration(window: int, *, keepalive: bool = False) -> Configuration:
    """Return grpclib's settings: `window` bytes that the peer may send before they are acknowledged.

    `keepalive`: close the connection when the peer is silent. A process that is stopped (SIGSTOP, a lost host) does
    not close its connections, so its silence is the only sign.
    """
    known: dict[str, Any] = {"http2_connection_window_size": window, "http2_stream_window_size": window}
    if keepalive:
        names = {field.name for field in fields(Configuration)}
        if missing := KEEPALIVE.keys() - names:
            logger.warning("%s: no keepalive, because grpclib has no %s", versions(), ", ".join(sorted(missing)))
        else:
            known |= KEEPALIVE
    return Configuration(**known)


def versions() -> str:
    from importlib.metadata import version  # takes longer to load than h2, and only a warning names the versions

    return f"grpclib {version('grpclib')}, h2 {version('h2')}"

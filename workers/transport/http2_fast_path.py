"""Plain DATA frames of one stream, past the general machinery of HTTP/2.

    transport ─▶ Http2FastPath ─ whole DATA frames of the stream ─▶ on_data
                    └────── everything else, in order ───────▶ grpclib ─▶ h2

A message of a hundred bytes costs h2 some 25 µs to send and 50 µs to receive: it is made for any frame in any state. On
a stream that lives as long as its connection nearly every frame is the same: type DATA, no flags, this stream. Those
are read and written here with what the protocol asks for and no more, which is their header of nine bytes and both flow
control windows; h2 keeps the books (we change its own numbers), and gets every other frame to see.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from snakepit.workers.transport.direct_read import READ_BYTES, DirectRead

HEADER = 9  # bytes: length (3), type (1), flags (1), stream (4); RFC 9113, section 4.1
LARGE = 1 << 12  # received bytes from which a view costs less than copies of their parts
ACCOUNT_BYTES = 1 << 18  # received bytes that are entered into h2's books at once


@lru_cache
def plain_header(stream: int) -> bytes:
    """What follows the length of a DATA frame without flags.

    >>> plain_header(3).hex()
    '000000000003'
    """
    return b"\0\0" + stream.to_bytes(4, "big")


class Http2FastPath(asyncio.Protocol):
    """Takes the transport over from grpclib's protocol and passes on what it does not take itself."""

    def __init__(self, raw: Any, on_data: Callable[[bytes | memoryview], None], ears: DirectRead | None = None) -> None:
        self._inner = raw._transport.get_protocol()
        self._raw = raw
        self._h2 = raw._h2_connection
        self._stream = self._h2.streams[raw.id]
        self._expected = plain_header(raw.id)
        self._on_data = on_data
        self._unaccounted = 0
        self._left = 0  # bytes of a frame of ours that are still to come
        self._head = b""  # the beginning of some frame's header
        raw._transport.set_protocol(self)
        self._loop = asyncio.get_running_loop()
        self._shut = ears.open(raw._transport, self.hear) if ears is not None else None

    def data_received(self, data: bytes) -> None:
        if rest := self._take(data):
            self._inner.data_received(rest)

    def hear(self, data: bytes) -> None:
        """As `data_received`, where no loop runs: what is not ours waits for its next turn, before it reads again."""
        if rest := self._take(data):
            self._loop.call_soon(self._inner.data_received, rest)

    def _take(self, data: bytes) -> bytes:
        """Hand over our frames; what begins with another one is returned."""
        if self._h2.incoming_buffer._data:  # the beginning of a frame is with h2: so is its end
            return data
        if self._head:
            data, self._head = self._head + data, b""
        at = self._take_frames(data)
        rest = data[at:] if at else data
        if len(rest) < HEADER:  # whose it is, what follows will tell
            self._head, rest = rest, b""
        if rest or self._unaccounted >= ACCOUNT_BYTES:
            self._account()
        return rest

    def _take_frames(self, data: bytes) -> int:
        """Hand over what is ours at the beginning of the data, also of a frame that is not whole; where that ends."""
        at, size = 0, len(data)
        parts = memoryview(data) if size >= LARGE else data
        if left := self._left:
            at = min(left, size)
            self._left = left - at
            self._unaccounted += at
            self._on_data(parts[:at])
        while size - at >= HEADER and data[at + 3 : at + HEADER] == self._expected:
            length = int.from_bytes(data[at : at + 3], "big")
            if length > self._h2.max_inbound_frame_size:
                break
            start = at + HEADER
            at = min(start + length, size)
            self._left = start + length - at
            self._unaccounted += at - start
            self._on_data(parts[start:at])
        return at

    def _account(self) -> None:
        """Tell h2 what came, as it would have noted it frame by frame, and give the peer its room back."""
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
        if self._shut:
            self._shut()
        if exc is not None:
            self._read_rest()
        self._inner.connection_lost(exc)

    def _read_rest(self) -> None:
        """What the peer said before it died, and we tried to write to it before we had read it all.

        A write that fails ends a transport at once, with everything unread in its socket, which is still open here.
        """
        socket = self._raw._transport.get_extra_info("socket")
        if socket is None or self._raw._transport.get_extra_info("sslcontext") is not None:
            return
        with contextlib.suppress(Exception):  # nothing is left, or h2 finds that it was too much
            while data := os.read(socket.fileno(), READ_BYTES):
                if rest := self._take(data):
                    self._inner.data_received(rest)


def write_plain(raw: Any, message: bytes) -> bool:
    """Write a message as DATA frames, if the windows and the transport have room; False: nothing was written."""
    h2, size = raw._h2_connection, len(message)
    stream = h2.streams.get(raw.id)
    if (
        stream is None
        or stream.closed
        or size > h2.outbound_flow_control_window
        or size > stream.outbound_flow_control_window
        or not raw.connection.write_ready.is_set()
    ):
        return False
    h2.outbound_flow_control_window -= size
    stream.outbound_flow_control_window -= size
    before = h2.data_to_send()  # usually nothing; what h2 has queued goes first
    if size <= h2.max_outbound_frame_size:
        raw._transport.write(before + size.to_bytes(3, "big") + plain_header(raw.id) + message)
    else:
        raw._transport.write(before + b"".join(frames_of(raw.id, message, h2.max_outbound_frame_size)))
    return True


def frames_of(stream: int, message: bytes, largest: int) -> Iterator[bytes | memoryview]:
    """A message as DATA frames of at most so many bytes, in pieces.

    >>> b"".join(frames_of(3, b"abcde", 4)).hex(" ", -1)
    '00 00 04 00 00 00 00 00 03 61 62 63 64 00 00 01 00 00 00 00 00 03 65'
    """
    header, view = plain_header(stream), memoryview(message)
    for start in range(0, len(message), largest):
        piece = view[start : start + largest]
        yield len(piece).to_bytes(3, "big") + header
        yield piece

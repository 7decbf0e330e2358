"""Decides whether streams take the fast path: it must be switched on, and work with the installed grpclib and h2.

near: FastStream on grpclib's connection ─ bytes in memory ─ far: h2 alone, through its public API
"""

from __future__ import annotations

import functools
import logging
from types import SimpleNamespace
from typing import Any

from grpclib.config import Configuration
from grpclib.protocol import Connection, Stream
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, PingReceived

from snakepit.workers.transport import FAST_PATH, is_on
from snakepit.workers.transport.frames import HEADER, framed
from snakepit.workers.transport.grpclib_internals import FastStream, FrameReader, versions

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "check")]
PING_BYTES = HEADER + 8
LARGEST = 1 << 16  # bytes of a message in the check
SIZES = (0, 100, 20_000)  # bytes of the messages that pass: empty, one frame, several frames

logger = logging.getLogger("snakepit.transport")


class _Broken(Exception):
    """The fast path does not do what h2 does."""


def has_fast_path(stream: Any = None) -> bool:
    """Whether this process, or one grpclib stream, may bypass grpclib and h2."""
    if not is_on(FAST_PATH) or fast_path_problem():
        return False
    return stream is None or isinstance(getattr(stream, "_stream", None), Stream)


@functools.cache
def fast_path_problem() -> str:
    """Return what does not work with the installed versions, empty when all does; the first call logs it."""
    try:
        check_fast_path()
    except Exception as error:
        problem = f"{versions()}: {type(error).__name__}: {error}"
        logger.warning("Messages pass through grpclib's public API, which is slower. The fast path fails: %s", problem)
        return problem
    return ""


def check_fast_path() -> None:
    """Pass messages both ways between the fast path and h2; raises what does not work."""
    connection = _ConnectionInMemory()
    for size in SIZES:
        connection.send(b"x" * size)
        connection.receive(b"y" * size)


class _ConnectionInMemory:
    """One stream between a FastStream and a peer that is h2 alone."""

    def __init__(self) -> None:
        self._written = bytearray()
        self._received: list[bytes] = []
        self._passed_on: list[Any] = []  # events of the frames that are not the fast path's
        self._near = H2Connection(H2Configuration(client_side=True))
        self._far = H2Connection(H2Configuration(client_side=False))
        transport: Any = SimpleNamespace(
            write=self._written.extend,
            is_closing=lambda: False,
            get_extra_info=lambda name: None,
            get_protocol=lambda: SimpleNamespace(data_received=self._through_grpclib),
            set_protocol=lambda protocol: setattr(self, "_reader", protocol),
        )
        self._connection = Connection(self._near, transport, config=Configuration())
        self._near.initiate_connection()
        self._far.initiate_connection()
        self._near.send_headers(1, REQUEST)
        self._far.receive_data(self._near.data_to_send())
        self._far.send_headers(1, [(":status", "200")])
        self._through_grpclib(self._far.data_to_send())
        raw = self._connection.create_stream(stream_id=1)
        self._far.send_data(1, framed(b"early"))
        for event in self._connection.feed(self._far.data_to_send()):
            if isinstance(event, DataReceived):
                raw.buffer.add(event.data, event.flow_controlled_length)
        self._reader: Any = None
        self._stream = FastStream(SimpleNamespace(_stream=raw), self._received.append, LARGEST)
        self._stream.open(FrameReader)
        self._expect(self._received == [b"early"], "a message that arrived early is lost")

    def _through_grpclib(self, data: bytes) -> None:
        self._passed_on += self._connection.feed(data)

    def _expect(self, good: bool, otherwise: str) -> None:
        if not good:
            raise _Broken(otherwise)

    def send(self, message: bytes) -> None:
        """From the fast path to h2."""
        self._written.clear()
        self._expect(self._stream.write_now(message), "a message does not fit into an empty window")
        events = self._far.receive_data(bytes(self._written))
        data = b"".join(event.data for event in events if isinstance(event, DataReceived))
        self._expect(data == framed(message), "h2 reads another message than the fast path wrote")
        near, far = self._near.local_flow_control_window(1), self._far.remote_flow_control_window(1)
        self._expect(near == far, f"after writing, the windows are {near} and {far} bytes")

    def receive(self, message: bytes) -> None:
        """From h2 to the fast path, with a frame of h2's own behind it that arrives in two parts."""
        self._received.clear()
        self._passed_on.clear()
        self._written.clear()
        data = framed(message)
        largest = self._far.max_outbound_frame_size
        for start in range(0, len(data), largest):
            self._far.send_data(1, data[start : start + largest])
        self._far.ping(b"12345678")
        arriving = self._far.data_to_send()
        for part in (arriving[: 1 - PING_BYTES], arriving[1 - PING_BYTES : -1], arriving[-1:]):
            self._reader.data_received(part)
        self._expect(self._received == [message], "the fast path reads another message than h2 sent")
        self._expect(any(isinstance(event, PingReceived) for event in self._passed_on), "a frame of h2 is lost")
        self._far.receive_data(bytes(self._written))  # updates of the windows
        near, far = self._near.remote_flow_control_window(1), self._far.local_flow_control_window(1)
        self._expect(near == far, f"after reading, the windows are {near} and {far} bytes")

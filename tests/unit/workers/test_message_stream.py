"""Message streams and the fast path, against a stand-in for the inside of a grpclib stream and on real connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from grpclib.protocol import Buffer, Stream
from h2.windows import WindowManager

from snakepit.workers.transport import FAST_PATH
from snakepit.workers.transport.frames import framed, plain_header
from snakepit.workers.transport.grpclib_internals import MessageBuffer, MessageTooLarge
from snakepit.workers.transport.message_stream import MessageStream
from snakepit.workers.wire import worker_pb2 as pb

PING = (8).to_bytes(3, "big") + b"\x06" + bytes(5) + b"opaque.."  # a frame for h2
LOOPS = [asyncio.new_event_loop]
with contextlib.suppress(ImportError):  # the broker's, where it is installed
    import uvloop

    LOOPS.append(uvloop.new_event_loop)


@pytest.fixture(autouse=True)
def fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FAST_PATH, raising=False)


class Raw(Stream):
    """A grpclib stream with the attributes that a test gives it."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class Peer:
    """What MessageStream touches of a stream: h2's windows, and a transport that remembers."""

    def __init__(self, window: int = 1 << 20) -> None:
        self.written: list[bytes] = []
        self.acknowledged = 0
        self.slow: list[bytes] = []
        self.protocol: Any = SimpleNamespace(data_received=lambda data: None)
        self.state = SimpleNamespace(
            outbound_flow_control_window=window, closed=False, _inbound_window_manager=WindowManager(1 << 20)
        )
        h2 = SimpleNamespace(
            max_outbound_frame_size=1 << 14,
            max_inbound_frame_size=1 << 14,
            outbound_flow_control_window=window,
            _inbound_flow_control_window_manager=WindowManager(1 << 20),
            incoming_buffer=SimpleNamespace(_data=bytearray()),
            streams={1: self.state},
            data_to_send=lambda: b"",
        )
        connection = SimpleNamespace(write_ready=asyncio.Event(), ack=self._ack)
        connection.write_ready.set()
        raw = Raw(
            connection=connection,
            _h2_connection=h2,
            _transport=SimpleNamespace(
                get_extra_info=lambda name: None,
                write=self.written.append,
                is_closing=lambda: False,
                get_protocol=lambda: self.protocol,
                set_protocol=lambda protocol: setattr(self, "protocol", protocol),
            ),
            id=1,
            buffer=Buffer(lambda size: None),
            send_data=self._send_slowly,
        )
        self.stream: Any = SimpleNamespace(_stream=raw)

    def messages(self, on_message: Callable[[bytes], None], limit: int = 100) -> MessageStream:
        return MessageStream(self.stream, pb.Reports, on_message, limit)

    @property
    def sent(self) -> list[bytes]:
        """The content of the DATA frames, whose headers must be right."""
        for frame in self.written:
            assert frame[:9] == (len(frame) - 9).to_bytes(3, "big") + plain_header(1)
        return [frame[9:] for frame in self.written]

    def _ack(self, number: int, size: int) -> None:
        self.acknowledged += size

    async def _send_slowly(self, data: bytes) -> None:
        await asyncio.sleep(0)
        self.slow.append(data)


def test_an_answer_to_a_message_that_came_before_the_handler_is_sent() -> None:
    async def main() -> list[bytes]:
        peer = Peer()
        early = framed(b"question")
        peer.stream._stream.buffer.add(early, len(early))
        frames = peer.messages(lambda message: frames.send(message + b" answered"))
        frames.open()
        return peer.sent

    assert asyncio.run(main()) == [framed(b"question answered")]


@pytest.mark.parametrize("step", [1, 7, 4096, 20_000, 1 << 20])
def test_frames_are_taken_however_their_bytes_arrive_and_h2_reads_the_others(step: int) -> None:
    """Whole, in pieces, and with the header cut in two; frames of h2 between them, in order."""

    async def main() -> None:
        peer, received, passed = Peer(), list[bytes](), list[bytes]()
        frames = peer.messages(received.append, 1 << 20)
        peer.protocol = SimpleNamespace(data_received=passed.append)
        frames.open()
        messages = [b"a" * size for size in (0, 1, 5_000, 16_379, 40_000)]
        for message in messages:  # in frames as large as allowed, as a peer sends them
            sent = framed(message)
            pieces = [sent[at : at + (1 << 14)] for at in range(0, len(sent), 1 << 14)]
            data = b"".join(len(piece).to_bytes(3, "big") + plain_header(1) + piece for piece in pieces)
            for at in range(0, len(data), step):
                peer.protocol.data_received(data[at : at + step])
            peer.protocol.data_received(PING)
        assert received == messages
        assert all(type(message) is bytes for message in received)
        assert passed == [PING] * len(messages)
        # h2's windows are updated before h2 reads the next frame: they limit what the peer may still send.
        assert peer.acknowledged == sum(map(len, map(framed, messages)))

    asyncio.run(main())


def test_a_header_that_arrives_in_two_parts_reaches_its_stream_whole() -> None:
    async def main() -> tuple[bytes, list[bytes]]:
        peer, received, passed = Peer(), list[bytes](), bytearray()
        frames = peer.messages(received.append)
        peer.protocol = SimpleNamespace(data_received=passed.extend)
        frames.open()
        ours = (8).to_bytes(3, "big") + plain_header(1) + framed(b"one")
        for data in (PING[:4], PING[4:], ours[:3], ours[3:12], ours[12:]):
            peer.protocol.data_received(data)
        return bytes(passed), received

    assert asyncio.run(main()) == (PING, [b"one"])


def test_a_message_larger_than_a_frame_is_sent_in_several_at_once() -> None:
    async def main() -> tuple[list[bytes], list[bytes], int]:
        peer = Peer()
        frames = peer.messages(lambda message: None)
        frames.open()
        frames.send(b"x" * 40_000)
        left = peer.state.outbound_flow_control_window
        return peer.written, peer.slow, left

    written, slow, left = asyncio.run(main())
    assert not slow
    (data,) = written
    sizes, content, at = list[int](), b"", 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 3], "big")
        assert data[at + 3 : at + 9] == plain_header(1)
        sizes.append(size)
        content += data[at + 9 : at + 9 + size]
        at += 9 + size
    assert sizes == [16_384, 16_384, 7_237]
    assert content == framed(b"x" * 40_000)
    assert left == (1 << 20) - 40_005


def test_without_room_messages_wait_in_order_and_travel_as_one() -> None:
    async def main() -> tuple[list[bytes], int]:
        peer = Peer(window=0)
        frames = peer.messages(lambda message: None)
        frames.open()
        for message in (b"first", b"second", b"third"):
            frames.send(message)
        assert frames.waiting == 16
        await frames.drained()
        return peer.slow, frames.waiting

    assert asyncio.run(main()) == ([framed(b"firstsecondthird")], 0)


def test_a_message_for_a_connection_that_closes_is_dropped() -> None:
    async def main() -> tuple[list[bytes], int]:
        peer = Peer()
        peer.stream._stream._transport.is_closing = lambda: True
        frames = peer.messages(lambda message: None)
        frames.send(b"late")
        return peer.written, frames.waiting

    assert asyncio.run(main()) == ([], 0)


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_messages_are_handed_over_however_their_bytes_arrive(step: int) -> None:
    async def main() -> list[bytes]:
        received: list[bytes] = []
        buffer = MessageBuffer(lambda size: None, received.append, limit=100)
        data = framed(b"one") + framed(b"") + framed(b"three")
        for start in range(0, len(data), step):
            buffer.add(data[start : start + step], step)
        return received

    assert asyncio.run(main()) == [b"one", b"", b"three"]


def test_a_message_over_the_limit_is_refused_by_its_length() -> None:
    async def main() -> None:
        received: list[bytes] = []
        buffer = MessageBuffer(lambda size: None, received.append, limit=10)
        buffer.add(framed(b"x" * 11)[:5], 5)
        buffer.add(framed(b"fine"), 9)
        assert not received
        with pytest.raises(MessageTooLarge, match="11 bytes"):
            await buffer.read(0)

    asyncio.run(main())


@pytest.mark.parametrize("new_loop", LOOPS)
def test_what_a_dead_peer_sent_is_read_though_a_write_to_it_fails_first(new_loop: Any) -> None:
    async def main() -> list[bytes]:
        near, far = socket.socketpair()
        lost = asyncio.get_running_loop().create_future()

        class Inner(asyncio.Protocol):
            def connection_lost(self, exc: Exception | None) -> None:
                lost.set_result(exc)

        transport, _ = await asyncio.get_running_loop().create_connection(Inner, sock=near)
        peer = Peer()
        peer.stream._stream._transport = transport
        received: list[bytes] = []
        peer.messages(received.append).open()
        transport.write(b"unread")
        answer = framed(b"an answer")
        far.send(len(answer).to_bytes(3, "big") + plain_header(1) + answer)
        far.close()
        transport.write(b"too late")
        assert isinstance(await lost, OSError)
        return received

    loop = new_loop()
    assert loop.run_until_complete(main()) == [b"an answer"]
    loop.close()

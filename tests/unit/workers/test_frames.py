"""The short way through a stream, against a stand-in for the inside of a grpclib stream."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from grpclib.protocol import Buffer

from workers.frames import Arrivals, Frames, MessageTooLarge


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


class Peer:
    """What Frames touches of a stream: an h2 connection with a window, and a transport that remembers."""

    def __init__(self, window: int = 1 << 20) -> None:
        self.sent: list[bytes] = []
        self.window = window
        self.acknowledged = 0
        self.slow: list[bytes] = []
        h2 = SimpleNamespace(
            max_outbound_frame_size=1 << 14,
            local_flow_control_window=lambda number: self.window,
            send_data=lambda number, data: self.sent.append(data),
            data_to_send=lambda: b"",
        )
        connection = SimpleNamespace(write_ready=asyncio.Event(), ack=self._ack)
        connection.write_ready.set()
        raw = SimpleNamespace(
            connection=connection,
            _h2_connection=h2,
            _transport=SimpleNamespace(write=lambda data: None, is_closing=lambda: False),
            id=1,
            buffer=Buffer(lambda size: None),
            send_data=self._send_slowly,
        )
        self.stream: Any = SimpleNamespace(_stream=raw)

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
        frames = Frames(peer.stream, lambda message: frames.put(message + b" answered"), limit=100)
        frames.open()
        frames.flush()
        return peer.sent

    assert asyncio.run(main()) == [framed(b"question answered")]


def test_what_is_put_in_one_turn_travels_as_one_message() -> None:
    async def main() -> list[bytes]:
        peer = Peer()
        frames = Frames(peer.stream, lambda message: None, limit=100)
        frames.open()
        for part in (b"a", b"b", b"c"):
            frames.put(part)
        await asyncio.sleep(0)
        assert frames.waiting == 0
        return peer.sent

    assert asyncio.run(main()) == [framed(b"abc")]


def test_without_room_the_rest_follows_in_order() -> None:
    async def main() -> tuple[list[bytes], int]:
        peer = Peer(window=0)
        frames = Frames(peer.stream, lambda message: None, limit=100)
        frames.open()
        frames.put(b"first")
        frames.flush()
        frames.put(b"second")
        await frames.drained()
        return peer.slow, frames.waiting

    assert asyncio.run(main()) == ([framed(b"first"), framed(b"second")], 0)


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_messages_are_handed_over_however_their_bytes_arrive(step: int) -> None:
    async def main() -> list[bytes]:
        heard: list[bytes] = []
        arrivals = Arrivals(lambda size: None, heard.append, limit=100)
        data = framed(b"one") + framed(b"") + framed(b"three")
        for start in range(0, len(data), step):
            arrivals.add(data[start : start + step], step)
        return heard

    assert asyncio.run(main()) == [b"one", b"", b"three"]


def test_a_message_over_the_limit_is_refused_by_its_length() -> None:
    async def main() -> None:
        heard: list[bytes] = []
        arrivals = Arrivals(lambda size: None, heard.append, limit=10)
        arrivals.add(framed(b"x" * 11)[:5], 5)
        arrivals.add(framed(b"fine"), 9)
        assert not heard
        with pytest.raises(MessageTooLarge, match="11 bytes"):
            await arrivals.read(0)

    asyncio.run(main())

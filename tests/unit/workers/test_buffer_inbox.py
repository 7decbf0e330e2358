"""The worker's end of the socket for large arguments."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from socket import SHUT_RDWR, socket

import pytest

from snakepit.workers.buffers import LARGEST_INLINE
from snakepit.workers.memory_file import MemoryFile
from snakepit.workers.transport import buffer_inbox
from snakepit.workers.transport.buffer_inbox import BufferInbox
from snakepit.workers.transport.receive_buffer import ReceiveBuffer


@pytest.fixture
def ends() -> Iterator[tuple[socket, BufferInbox]]:
    made = buffer_inbox.pair()
    assert made is not None
    broker, inbox = made[0], BufferInbox(made[1].detach())
    yield broker, inbox
    broker.close()
    inbox.close()


def test_bytes_arrive_with_their_call_and_those_of_earlier_calls_are_dropped(ends: tuple[socket, BufferInbox]) -> None:
    broker, inbox = ends
    assert all(buffer_inbox.send(broker, number, data=b"%d" % number * 9000) for number in (1, 2, 3))
    found = inbox.take(2)
    assert found.inline == b"2" * 9000
    found.view([64, 0, 9000])[:2] = b"xx"  # the array of a command may be written to
    assert inbox.take(3).inline == b"3" * 9000
    assert found.inline[:3] == b"xx2"


def test_a_small_part_is_copied_so_that_it_does_not_keep_the_others(ends: tuple[socket, BufferInbox]) -> None:
    broker, inbox = ends
    buffer_inbox.send(broker, 1, data=bytes(40_000))
    found = inbox.take(1)
    assert found.view([64, 0, 10_000]).readonly
    assert not found.view([64, 10_000, 30_000]).readonly


def test_descriptors_arrive_with_their_call(ends: tuple[socket, BufferInbox]) -> None:
    broker, inbox = ends
    file = MemoryFile()
    file.append(b"in a file")
    file.seal()
    assert buffer_inbox.send(broker, 1, [file.descriptor])
    found = inbox.take(1)
    assert (len(found), found.inline, os.pread(found.descriptors[0], 99, 0)) == (1, b"", b"in a file")


def test_more_bytes_than_a_worker_has_room_for_are_not_sent(ends: tuple[socket, BufferInbox]) -> None:
    broker, inbox = ends
    assert not buffer_inbox.send(broker, 1, data=bytes(LARGEST_INLINE + 1))
    assert buffer_inbox.send(broker, 2, data=bytes(LARGEST_INLINE))
    assert len(inbox.take(2).inline) == LARGEST_INLINE


def test_a_full_socket_takes_no_more(ends: tuple[socket, BufferInbox]) -> None:
    sent = 0
    while buffer_inbox.send(ends[0], sent + 1, data=bytes(50_000)):
        sent += 1
    assert sent > 0


def test_parts_are_read_when_they_come_and_wait_for_their_call(ends: tuple[socket, BufferInbox]) -> None:
    broker, inbox = ends
    loop = asyncio.new_event_loop()
    try:
        inbox.open(loop)
        for number in range(1, 33):  # more than a socket holds
            assert buffer_inbox.send(broker, number, data=b"%d" % number * 9000)
            loop.call_soon(loop.stop)
            loop.run_forever()
        assert [inbox.take(number).inline[:2] for number in (31, 3, 32)] == [b"31", b"", b"32"]
        broker.shutdown(SHUT_RDWR)
        assert not inbox.take(33).inline
    finally:
        loop.close()


def test_a_large_part_is_handed_over_and_a_small_one_copied() -> None:
    buffer = ReceiveBuffer(LARGEST_INLINE)
    memory = buffer.memory
    small = buffer.take(10)
    assert (len(small), buffer.memory is memory) == (10, True)
    memory[:4] = b"part"
    large = buffer.take(LARGEST_INLINE // 2)
    assert (large is memory, len(large), bytes(large[:4])) == (True, LARGEST_INLINE // 2, b"part")
    assert (len(buffer.memory), buffer.memory is memory) == (LARGEST_INLINE, False)

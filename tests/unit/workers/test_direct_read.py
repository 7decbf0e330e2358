"""Sockets that are read without their loop, on real ones: what an ear takes, and what it leaves to the loop."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from snakepit.workers.transport.direct_read import READ_BYTES, DirectRead
from snakepit.workers.transport.spin_wait import SpinWait


class CallQueue(asyncio.Protocol):
    """One end of a pair of sockets on a loop, with an ear at it; the test has the other end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ears: DirectRead) -> None:
        mine, self.far = socket.socketpair()
        self.heard: list[bytes] = []  # through the ear
        self.received: list[bytes] = []  # through the loop
        self.lost = False
        made = loop.run_until_complete(loop.create_connection(lambda: self, sock=mine))
        self.transport: Any = made[0]
        self.shut = ears.open(self.transport, self.hear)

    def hear(self, data: bytes) -> None:
        assert asyncio._get_running_loop() is None
        self.heard.append(data)

    def data_received(self, data: bytes) -> None:
        self.received.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.shut()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.SelectorEventLoop()
    yield loop
    loop.close()


@pytest.fixture
def ears(loop: asyncio.AbstractEventLoop) -> DirectRead:
    return DirectRead(loop)


@pytest.fixture
def line(loop: asyncio.AbstractEventLoop, ears: DirectRead) -> Iterator[CallQueue]:
    line = CallQueue(loop, ears)
    yield line
    line.far.close()
    line.transport.abort()
    ears.turn()


def test_what_comes_through_an_ear_is_handed_over_while_no_loop_runs(ears: DirectRead, line: CallQueue) -> None:
    line.far.send(b"one")
    ears.wait(None)
    line.far.send(b"two")
    ears.wait(None)
    assert line.heard == [b"one", b"two"]
    assert not line.received


def test_more_than_one_read_holds_comes_in_several(ears: DirectRead, line: CallQueue) -> None:
    text = random.Random(1).randbytes(2 * READ_BYTES + 7)
    sender = threading.Thread(target=line.far.sendall, args=(text,))
    sender.start()
    while sum(map(len, line.heard)) < len(text):
        ears.wait(None)
    sender.join()
    assert b"".join(line.heard) == text


def test_without_anything_the_wait_ends_with_the_patience(ears: DirectRead, line: CallQueue) -> None:
    ears.wait(0.0)
    ears.wait(0.001)
    assert not line.heard


def test_what_comes_while_a_wait_is_awake_is_heard_without_sleep(
    loop: asyncio.AbstractEventLoop, line: CallQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter((b"one", b"two"))

    def give_way() -> None:
        line.far.send(next(said))

    ears = DirectRead(loop)
    ears._vigil = SpinWait(lambda: ears._epoll.poll(0), give_way=give_way)  # type: ignore[union-attr]
    line.shut()
    line.shut = ears.open(line.transport, line.hear)
    for count in (1, 2):
        ears._vigil.end()
        ears.wait(None, awake=10.0)  # who sleeps here sleeps for ever: nobody else says anything
        assert len(line.heard) == count
    assert not line.received


def test_an_interrupt_while_a_wait_is_awake_loses_nothing(ears: DirectRead, line: CallQueue) -> None:
    assert ears._vigil is not None

    def interrupt() -> None:
        line.far.send(b"just then")
        raise KeyboardInterrupt

    give_way, ears._vigil._give_way = ears._vigil._give_way, interrupt
    ears._vigil.end()
    with pytest.raises(KeyboardInterrupt):
        ears.wait(None, awake=10.0)
    ears._vigil._give_way = give_way
    ears.wait(None, awake=10.0)
    assert line.heard == [b"just then"]


def test_callbacks_timers_and_other_threads_have_their_turn(
    loop: asyncio.AbstractEventLoop, ears: DirectRead, line: CallQueue
) -> None:
    done: list[str] = []
    loop.call_soon(done.append, "soon")
    ears.wait(None)
    assert done == ["soon"]
    loop.call_later(0.001, done.append, "timer")
    while "timer" not in done:
        ears.wait(None)  # nothing else would end this wait
    other = threading.Thread(target=loop.call_soon_threadsafe, args=(done.append, "thread"))
    other.start()
    while "thread" not in done:
        ears.wait(None)
    other.join()


def test_a_timer_that_is_due_is_not_kept_waiting_by_a_busy_socket(
    loop: asyncio.AbstractEventLoop, ears: DirectRead, line: CallQueue
) -> None:
    done: list[str] = []
    loop.call_later(0.001, done.append, "timer")
    while not done:
        line.far.send(b"more")
        ears.wait(None)
    assert line.heard or line.received


def test_sockets_without_an_ear_are_the_loops(
    loop: asyncio.AbstractEventLoop, ears: DirectRead, line: CallQueue
) -> None:
    other = CallQueue(loop, ears)
    other.shut()
    other.far.send(b"for the loop")
    line.far.send(b"for the ear")
    while not (line.heard and other.received):
        ears.wait(None)
    assert (line.heard, line.received) == ([b"for the ear"], [])
    assert (other.heard, other.received) == ([], [b"for the loop"])
    other.far.close()
    while not other.lost:
        ears.wait(None)


def test_the_end_of_a_connection_is_told_by_the_loop_and_ends_the_ear(ears: DirectRead, line: CallQueue) -> None:
    line.far.send(b"last words")
    line.far.close()
    while not line.lost:
        ears.wait(None)
    assert line.heard + line.received == [b"last words"]
    assert not ears


def test_an_error_on_the_connection_ends_it_too(ears: DirectRead, line: CallQueue) -> None:
    line.transport.write(b"unread")
    line.far.send(b"last words")
    line.far.close()  # with something unread in it: a reset, which the first read meets as an error
    while not line.lost:
        ears.wait(None)
    assert not ears


def test_a_transport_that_closes_is_not_read(ears: DirectRead, line: CallQueue) -> None:
    line.far.send(b"too late")
    line.transport.close()
    while not line.lost:
        ears.wait(None)
    assert not line.heard


def test_what_is_encrypted_has_no_ear(ears: DirectRead) -> None:
    near, far = socket.socketpair()
    extras = {"socket": near, "sslcontext": ssl.create_default_context()}
    ears.open(SimpleNamespace(get_extra_info=extras.get), lambda data: None)
    assert not ears
    near.close()
    far.close()


def test_an_ear_at_a_reply_socket_takes_one_datagram_a_read(loop: asyncio.AbstractEventLoop, ears: DirectRead) -> None:
    box, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with box, sender:
        box.setblocking(False)
        heard: list[bytes] = []
        loop.add_reader(box, lambda: None)
        shut = ears.listen(box, heard.append, 100)
        for letter in (b"first", b"second"):
            sender.send(letter)
        while len(heard) < 2:
            ears.wait(10.0)
        assert heard == [b"first", b"second"]
        shut()
        sender.send(b"third")
        ears.wait(10.0)  # the loop's turn: nobody listens here
        assert heard == [b"first", b"second"]
        loop.remove_reader(box)

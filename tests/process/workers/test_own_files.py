"""Sockets and event loops do not touch a foreign file that took one of their numbers."""

from __future__ import annotations

import os
import select
import selectors
import socket
import sys
from collections.abc import Iterator

import pytest

from snakepit.workers.transport import own_files
from snakepit.workers.transport.own_files import DescriptorGone, OwnSelector, OwnSocket, own

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


@pytest.fixture(params=["cookie", "identity"])
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[OwnSocket, socket.socket]]:
    """A socket that is ours, with both ways to recognise it, and its peer."""
    if request.param == "identity":
        monkeypatch.setattr(own_files, "cookie", lambda made: None)
    mine, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours = own(mine)
    with peer:
        yield ours, peer
    ours.close()


def test_a_socket_sends_and_receives_while_its_number_is_its_own(pair: tuple[OwnSocket, socket.socket]) -> None:
    ours, peer = pair
    assert ours.send(b"out") == 3
    assert peer.recv(10) == b"out"
    peer.send(b"back")
    buffer = bytearray(10)
    assert ours.recv_into(buffer) == 4
    peer.send(b"more")
    assert ours.recv(10) == b"more"


def test_a_socket_leaves_a_foreign_socket_that_took_its_number_alone(pair: tuple[OwnSocket, socket.socket]) -> None:
    ours, _ = pair
    number = ours.fileno()
    foreign, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with foreign, other:
        other.send(b"theirs")
        os.dup2(foreign.fileno(), number)
        for operation in (lambda: ours.send(b"x"), lambda: ours.recv(10), lambda: ours.recv_into(bytearray(10))):
            with pytest.raises(DescriptorGone):
                operation()
        ours.close()
        with socket.socket(fileno=number) as kept:
            assert kept.recv(10, socket.MSG_DONTWAIT) == b"theirs"


def test_a_closed_socket_raises_what_a_closed_socket_raises(pair: tuple[OwnSocket, socket.socket]) -> None:
    ours, _ = pair
    ours.close()
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        ours.send(b"x")
    assert not isinstance(caught.value, DescriptorGone)


@pytest.mark.skipif(sys.platform != "linux", reason="the file that took the number is an epoll")
def test_a_selector_refuses_each_wait_once_a_foreign_epoll_took_its_number() -> None:
    ours, foreign = OwnSelector(), select.epoll()
    os.dup2(foreign.fileno(), ours.fileno())
    for _ in range(3):
        with pytest.raises(DescriptorGone):
            ours.select(0)
    ours.close()
    foreign.close()


def test_a_selector_reports_the_events_that_the_selector_of_the_standard_library_reports() -> None:
    mine, peer = socket.socketpair()
    with mine, peer, OwnSelector() as ours, selectors.DefaultSelector() as standard:
        peer.send(b"x")
        found = []
        for one in (ours, standard):
            one.register(mine, READ, "data")
            at_first = one.select(1)
            one.modify(mine, READ | WRITE, "changed")
            both = one.select(1)
            one.modify(mine, WRITE)
            writing = one.select(0)
            one.unregister(mine)
            found.append((at_first, both, writing, one.select(0)))
        assert found[0] == found[1]
        assert [len(events) for events in found[0]] == [1, 1, 1, 0]


def test_a_selector_wakes_at_its_longest_wait_and_finds_a_descriptor_that_was_closed() -> None:
    mine, peer = socket.socketpair()
    with peer, OwnSelector(longest=0.01, longest_of_main=0.01) as ours:
        ours.register(mine, READ)
        assert ours.select() == []
        number = mine.detach()
        os.close(number)
        with pytest.raises(DescriptorGone):
            ours.select()


def test_a_check_takes_no_descriptor_for_lost_that_another_thread_registers_or_unregisters_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine, peer = socket.socketpair()
    later = socket.socket()
    with peer, later, OwnSelector() as ours:
        ours.register(mine, READ)
        real = own_files.is_same

        def meanwhile(number: int, known: tuple[int, int]) -> bool:
            if mine.fileno() >= 0:
                ours.register(later, READ)
                ours.unregister(mine)
                mine.close()
            return real(number, known)

        monkeypatch.setattr(own_files, "is_same", meanwhile)
        ours.check()

"""Sockets and event loops do not touch a foreign file that took one of their numbers."""

from __future__ import annotations

import selectors
import socket

import pytest

from snakepit.workers.transport import own_files
from snakepit.workers.transport.own_files import OwnSelector

READ = selectors.EVENT_READ


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

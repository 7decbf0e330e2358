"""The guard of tests/unit refuses what it names, and lets an event loop have its pair of sockets."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.conftest import GUARD


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def spawn() -> None:
    multiprocessing.get_context("spawn").Process(target=print).start()


def connect() -> None:
    with socket.socket() as one:
        one.connect(("127.0.0.1", 9))


def bind() -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("never")


def start() -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


def start_in_a_thread() -> None:
    def act() -> None:
        with contextlib.suppress(BaseException):
            start()

    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


@pytest.mark.parametrize("act", [start, fork, spawn, connect, bind, start_in_a_thread])
def test_a_unit_test_that_needs_the_system_learns_where_it_belongs(
    act: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pytest.fail.Exception, match="belong in tests/process"), GUARD.watching():
        act()
    assert not (tmp_path / "never").exists()


def test_an_event_loop_and_a_pair_of_sockets_are_allowed() -> None:
    with GUARD.watching():
        asyncio.run(asyncio.sleep(0))
        near, far = socket.socketpair()
        near.send(b"x")
        assert far.recv(1) == b"x"
        near.close()
        far.close()

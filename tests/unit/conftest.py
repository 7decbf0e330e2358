"""Keeps processes and sockets out of tests/unit, and time limits out of the examples of hypothesis.

A unit test that starts a process, or binds or connects a socket, fails and names the folder where it belongs.
`socket.socketpair` is allowed: an event loop wakes itself up with one.
"""

from __future__ import annotations

import contextlib
import multiprocessing.util
import sys
import threading
from collections.abc import Generator, Iterator
from typing import Any
from unittest import mock

import pytest

with contextlib.suppress(ImportError):  # the interpreter of a worker may have none
    from hypothesis import settings

    settings.register_profile("any machine", deadline=None)  # by default, an example that takes 0.2 s fails
    settings.load_profile("any machine")

PROCESS_EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"}
SOCKET_EVENTS = {"socket.bind", "socket.connect", "socket.sendto", "socket.getaddrinfo"}


class Guard:
    """An audit hook. Python cannot remove one, so it acts only while a unit test runs."""

    def __init__(self) -> None:
        self._active = False
        self._older: set[int | None] = set()  # threads of earlier tests, such as one that still tries to connect
        self._refused: list[str] = []
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active or threading.get_ident() in self._older:
            return
        if event in PROCESS_EVENTS:
            self._refuse(f"starts a process ({event})")
        if event in SOCKET_EVENTS:
            self._refuse(f"opens a socket ({event})")

    def _refuse(self, what: str) -> None:
        self._refused.append(f"This unit test {what}. Tests with processes or sockets belong in tests/process.")
        pytest.fail(self._refused[0], pytrace=False)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        def spawn(*_: object) -> None:
            self._refuse("starts a process (multiprocessing)")

        self._refused.clear()
        self._older = {thread.ident for thread in threading.enumerate() if thread is not threading.current_thread()}
        self._active = True
        try:
            # "spawn" and "forkserver" raise no audit event.
            with mock.patch.object(multiprocessing.util, "spawnv_passfds", spawn):
                yield
        finally:
            self._active = False
        if self._refused:  # the first failure was raised in a thread, or the code caught it
            pytest.fail(self._refused[0], pytrace=False)


GUARD = Guard()


@pytest.fixture(autouse=True, scope="module")
def no_client_looks_for_nodes() -> None:
    """End the threads that watch nodes for the calls of earlier tests: they open sockets, and draw random numbers."""
    names = ("snakepit-nodes", "snakepit-find-nodes")
    if "snakepit.pools.client.routing.router" not in sys.modules:  # a worker's interpreter has no client
        return
    from snakepit.pools.client.routing import router

    with mock.patch.object(router, "IDLE", -1.0):
        while threads := [one for one in threading.enumerate() if one.name in names]:
            threads[0].join(30)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    with GUARD.watching():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with GUARD.watching():
        return (yield)

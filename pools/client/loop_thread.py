"""The event loop that all sessions of a process share, its background thread, and what a fork does to them.

A thread that waits for its answer runs the loop itself (workers/transport/loop_owner.py): passing each call to a
background thread and back costs two wake-ups. The background thread runs the loop while no thread waits, or several do.

A forked child has the parent's memory but not its threads: no thread runs the loop, and the loop's sockets are still
the parent's connections. The child must neither use nor close them:

- `loop.close()` would remove the sockets from the epoll set that parent and child share: the parent reads nothing more.
- Closing a connection in order would end the parent's session.
- Closing the bare descriptors would let their numbers be used again, while old objects will still close them.

So the child points each descriptor of the loop at /dev/null and keeps the old objects forever.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import selectors
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from snakepit.pools.broker.errors import NOT_STARTED, BrokerUnreachable
from snakepit.pools.greenlets import PATCHED, is_patched
from snakepit.workers.transport.loop_owner import LoopOwner

T = TypeVar("T")
STOP_TIMEOUT = 2.0  # seconds that the end of the process waits for the sessions to end in order


class LoopThread:
    """One event loop, and the daemon thread that is its backup until the process ends."""

    def __init__(self) -> None:
        if is_patched():
            raise BrokerUnreachable(PATCHED, outcome=NOT_STARTED)
        # Our own selector, because the child of a fork has to know which descriptors the loop has.
        self.selector = selectors.DefaultSelector()
        self.loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop(self.selector)
        self.loop_owner = LoopOwner(self.loop)
        self._over = False
        self.thread = threading.Thread(target=self._run, name="snakepit-client", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop_owner.run_backup(lambda: self._over)
        finally:
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self.loop.close()

    def stop(self) -> None:
        """End the loop; its tasks are cancelled and end their sessions."""
        self._over = True
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self.loop.call_soon_threadsafe(self.loop.stop)
        self.loop_owner.leave_to_backup()
        self.thread.join(STOP_TIMEOUT)

    def abandon(self) -> None:
        """In the child of a fork: let go of the parent's descriptors without a message to any broker."""
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        own = [self.selector.fileno()] if hasattr(self.selector, "fileno") else []
        for descriptor in [*own, *(key.fd for key in self.selector.get_map().values())]:
            os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)


_lock = threading.Lock()
_current: LoopThread | None = None
_kept: list[object] = []  # objects of the parent that must never be collected in a child
_after_fork: list[Callable[[], None]] = []


def run(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Run a coroutine on the process's loop, soon."""
    loop_owner = event_loop()
    running = asyncio.run_coroutine_threadsafe(coroutine, loop_owner.loop)
    loop_owner.ensure_running()
    return running


def event_loop() -> LoopOwner:
    """Return the process's loop and its owner; started on first use."""
    global _current
    current = _current
    if current is None:
        with _lock:
            if _current is None:
                _current = LoopThread()
            current = _current
    return current.loop_owner


def after_fork(forget: Callable[[], None]) -> None:
    """Have a function called in the child of each fork, after `abandon`."""
    _after_fork.append(forget)


def stop() -> None:
    """End the background thread; the next call starts a new one."""
    global _current
    with _lock:
        current, _current = _current, None
    if current is not None:
        current.stop()


def _forget() -> None:
    global _lock, _current
    _lock = threading.Lock()  # another thread may have held it when the process forked
    current, _current = _current, None
    if current is not None:
        _kept.append(current)
        current.abandon()
    for forget in _after_fork:
        forget()


os.register_at_fork(after_in_child=_forget)
atexit.register(stop)

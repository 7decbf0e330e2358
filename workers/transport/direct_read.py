"""Waiting for a loop's sockets without running the loop.

    wait ─ one epoll ─┬─▶ an ear's socket: one read, straight into its stream
                      └─▶ anything else (timers, callbacks, other sockets): one turn of the loop

A turn of asyncio's loop costs more than a short call: a callback for the reader, a handle for each thing that is put
off, the way in and out of `run_forever`, a second look at the selector, and a buffer of 256 KiB that is mapped and
unmapped for a hundred bytes. A thread that waits for the next message of a stream that it knows needs none of it.

What is read here is handed over while no loop runs, so an ear must take it without asking for the running loop, and
put off what needs one with `call_soon`. Only plain sockets are read this way: what comes through TLS is the loop's.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from typing import Any

from snakepit.workers.transport.spin_wait import SpinWait

READ_BYTES = 1 << 16
EVENTS = 16  # sockets that are looked at in one wait; the others come up in the next


class Ear:
    """One socket, and who takes what comes through it."""

    def __init__(
        self, is_closing: Callable[[], bool], descriptor: int, take: Callable[[bytes], None], room: int
    ) -> None:
        self._is_closing = is_closing
        self.descriptor = descriptor
        self._take = take
        self._view = memoryview(bytearray(room))  # one for its life: nothing is allocated for what may come
        self._buffers = (self._view,)

    def read(self) -> bool:
        """Hand over what is there. False: the loop has to see to it, it is the end or an error."""
        if self._is_closing():
            return False
        try:
            size = os.readv(self.descriptor, self._buffers)
        except BlockingIOError:
            return True
        except OSError:
            return False  # the loop's own read meets the end of it
        if size:
            self._take(bytes(self._view[:size]))
        return size > 0


class DirectRead:
    """All ears of one loop. Used only by the thread that may run it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Any = loop
        selector = getattr(getattr(loop, "_selector", None), "_selector", None)
        self._epoll = epoll = selector if isinstance(selector, select.epoll) else None  # None: this loop has no ears
        self._open: dict[int, Ear] = {}
        self._vigil = SpinWait(lambda: epoll.poll(0, EVENTS)) if epoll is not None else None

    def __bool__(self) -> bool:
        return bool(self._open)

    def open(self, transport: Any, take: Callable[[bytes], None]) -> Callable[[], None]:
        """Read this transport's socket from now on, where that is possible. Returns what ends it.

        It has to be ended before the socket is closed: its number may be another's then.
        """
        socket = transport.get_extra_info("socket")
        if self._epoll is None or socket is None or transport.get_extra_info("sslcontext") is not None:
            return lambda: None
        return self._add(Ear(transport.is_closing, socket.fileno(), take, READ_BYTES))

    def listen(self, socket: Any, take: Callable[[bytes], None], room: int) -> Callable[[], None]:
        """As `open`, for a datagram socket that the loop reads too; `room`: bytes of the largest datagram."""
        if self._epoll is None:
            return lambda: None
        return self._add(Ear(lambda: False, socket.fileno(), take, room))

    def _add(self, ear: Ear) -> Callable[[], None]:
        self._open[ear.descriptor] = ear
        return lambda: self._close(ear.descriptor)

    def _close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)

    def wait(self, patience: float | None, awake: float = 0.0) -> None:
        """Read, or let the loop have a turn, as soon as there is something, and at the latest after `patience`.

        For `awake` seconds of that it may be waited without sleeping.
        """
        assert self._epoll is not None
        loop = self._loop
        if loop._ready:
            self.turn()
            return
        timeout = -1.0 if patience is None else max(0.0, patience)
        if scheduled := loop._scheduled:
            until_alarm = scheduled[0]._when - loop.time()
            if until_alarm <= 0:
                self.turn()
                return
            timeout = until_alarm if timeout < 0 else min(timeout, until_alarm)
        vigil = self._vigil if awake and timeout else None
        found = vigil.keep(awake if timeout < 0 else min(awake, timeout)) if vigil is not None else None
        others = False
        for descriptor, event in found or self._epoll.poll(timeout, EVENTS):
            ear = self._open.get(descriptor)
            others |= ear is None or event != select.EPOLLIN or not ear.read()
        if vigil is not None:
            vigil.end()
        if others:
            self.turn()

    def turn(self) -> None:
        """Let the loop do what it can without waiting."""
        self._loop.stop()  # before it runs: it then looks once and comes back
        self._loop.run_forever()

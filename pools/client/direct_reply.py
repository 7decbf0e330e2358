"""A socket of our own for the results of lone calls, which their workers put there themselves.

    call ─▶ broker ─▶ worker ── Delivery ──▶ reply_socket ─▶ the caller

A call at rest is as slow as its hops, and this saves one. The reply socket is a datagram socket beside the broker's:
who may enter that directory may write to it. Where there can be none, all answers come through the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable

from google.protobuf.message import DecodeError

from snakepit.pools.client.address import LONGEST_PATH
from snakepit.workers.transport.direct_read import DirectRead
from snakepit.workers.transport.direct_reply import LETTER
from snakepit.workers.wire.worker_pb2 import Delivery


class DirectReplySocket:
    """One of a session. `name` is what the broker is told; empty where there is no reply_socket."""

    def __init__(self, broker: str) -> None:
        """`broker`: the path of its socket; empty: it is on another host."""
        self.name = ""
        self._socket: socket.socket | None = None
        self._close: Callable[[], None] = lambda: None
        if broker:
            name = f"l-{secrets.token_hex(4)}"
            self._path = os.path.join(os.path.dirname(broker), name)
            self._bind(name)

    def _bind(self, name: str) -> None:
        if len(os.fsencode(self._path)) > LONGEST_PATH:
            return
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            made.bind(self._path)
        except OSError:  # no right to write there, or no room: the broker's way is always open
            made.close()
            return
        made.setblocking(False)
        self._socket, self.name, self._owner = made, name, os.getpid()

    def open(self, loop: asyncio.AbstractEventLoop, ears: DirectRead, take: Callable[[Delivery], None]) -> None:
        """From now on deliveries are handed over, on the thread that runs the loop or in its place."""
        if (made := self._socket) is None:
            return

        def receive(data: bytes) -> None:
            with contextlib.suppress(DecodeError):  # whoever may write here may write nonsense; nobody waits for it
                take(Delivery.FromString(data))

        room = memoryview(bytearray(LETTER))  # one for its life, which `recv` would allocate for each letter

        def read() -> None:
            with contextlib.suppress(BlockingIOError):  # an ear was there first
                receive(bytes(room[: made.recv_into(room)]))

        loop.add_reader(made, read)
        shut = ears.listen(made, receive, LETTER)

        def close() -> None:
            shut()
            loop.remove_reader(made)

        self._close = close

    def close(self) -> None:
        """Safe to call twice, and in the child of a fork, whose reply_socket it is not."""
        if self._socket is not None and self._owner == os.getpid():
            self._close()
            self._socket.close()
            self._socket, self.name = None, ""
            with contextlib.suppress(OSError):
                os.unlink(self._path)

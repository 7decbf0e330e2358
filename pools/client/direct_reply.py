"""The client's reply socket: workers send the results of lone calls there, past the broker.

    call ─▶ broker ─▶ worker ── Delivery ──▶ reply socket ─▶ the call that waits

Each hop of a call at rest costs time, and this saves one. The reply socket is a datagram socket beside the broker's:
a process that may enter that directory may write to it. Without a reply socket all results come through the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable, Mapping

from google.protobuf.message import DecodeError

from snakepit.pools.client.address import LONGEST_PATH
from snakepit.pools.client.call_messages import Delivered
from snakepit.pools.client.protocol import Pending
from snakepit.workers.buffers import ROOM, received
from snakepit.workers.memory_file import are_possible
from snakepit.workers.transport import BUFFERS, DIRECT_REPLY, is_on
from snakepit.workers.transport.direct_reply import LARGEST_DELIVERY, opened
from snakepit.workers.transport.own_files import OwnSocket
from snakepit.workers.wire.worker_pb2 import Delivery

Take = Callable[[int, str, Delivered], None]  # a result, with the number of its call and its kind


class DirectReplySocket:
    """One of each session. `name` is what the broker receives; empty: there is no reply socket."""

    def __init__(self, broker: str) -> None:
        """`broker`: the path of its socket; empty: it is on another host."""
        self.name = ""
        self._takes_buffers = is_on(BUFFERS) and are_possible()
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._read: Callable[[], bool] = lambda: False
        if broker and is_on(DIRECT_REPLY):
            name = f"r-{secrets.token_hex(4)}"
            self._path = os.path.join(os.path.dirname(broker), name)
            self._bind(name)

    def _bind(self, name: str) -> None:
        if len(os.fsencode(self._path)) > LONGEST_PATH:
            return
        made = OwnSocket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            made.bind(self._path)
        except OSError:  # no right to write there, or no room: results come through the broker
            made.close()
            return
        made.setblocking(False)
        self._socket, self.name, self._owner = made, name, os.getpid()

    @property
    def takes_buffers(self) -> bool:
        """Whether results may have descriptors beside them."""
        return self._takes_buffers and self._socket is not None

    def open(
        self,
        loop: asyncio.AbstractEventLoop,
        take: Take,
        waiting: Mapping[int, Pending],
    ) -> None:
        """Hand over deliveries from now on, on the thread that runs the loop. `waiting`: calls, by their numbers."""
        if (made := self._socket) is None:
            return
        buffer = memoryview(bytearray(LARGEST_DELIVERY))  # `recv` would allocate as much for each datagram

        def read() -> None:
            try:
                delivery = Delivery.FromString(bytes(buffer[: made.recv_into(buffer)]))
            except (BlockingIOError, DecodeError):  # a process that may write here may write anything
                return
            take(delivery.ref, "packed", Delivered(delivery))

        def read_with_buffers() -> bool:
            # Only `recvmsg` keeps descriptors; all other reads drop them.
            arrived = None
            try:
                size, ancillary, _, _ = made.recvmsg_into([buffer], ROOM, socket.MSG_CMSG_CLOEXEC)
                arrived = received(ancillary) if ancillary else None
                delivery, arrived = opened(buffer[:size], arrived)
            except BlockingIOError:
                return False
            except DecodeError:
                return True
            hand_over(Delivered(delivery, arrived), take, waiting)
            return True

        loop.add_reader(made, read_with_buffers if self._takes_buffers else read)
        self._loop, self._read = loop, read_with_buffers

    def read_waiting(self) -> None:
        """Hand over all deliveries that have come."""
        while self._socket is not None and self._read():
            pass

    def close(self) -> None:
        """Safe to call twice, and in the child of a fork, which does not own the socket."""
        if self._socket is not None and self._owner == os.getpid():
            if self._loop is not None:
                self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket, self.name = None, ""
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def hand_over(arrived: Delivered, take: Take, waiting: Mapping[int, Pending]) -> None:
    """Hand over a result, or large parts ahead of their value; close the parts of a call that has ended."""
    ref = arrived.delivery.ref
    if not arrived.delivery.parts:
        take(ref, "packed", arrived)
        return
    if (call := waiting.get(ref)) is not None:
        call.deliver("parts", arrived)
    if call is None or waiting.get(ref) is not call:  # the call's own thread may have cancelled it just now
        arrived.close()

"""The worker's end of the socket on which the broker passes the large parts of arguments: descriptors, or bytes.

     broker ── datagram: sequence + descriptors or bytes ──▶ BufferInbox ── take(sequence) ──▶ AssignedCall.buffers
     broker ── Assign(sequence) ───────────────────────────▶ link

The broker sends the datagram first, so it is here when the call is.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from snakepit.workers.buffers import LARGEST_INLINE, ROOM, Incoming, received, rights
from snakepit.workers.memory_file import are_possible
from snakepit.workers.transport.own_files import OwnSocket
from snakepit.workers.transport.receive_buffer import ReceiveBuffer

SEQUENCE_BYTES = 8


def pair() -> tuple[socket.socket, socket.socket] | None:
    """The broker's and the worker's end; None where descriptors cannot be passed."""
    if not are_possible():
        return None
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ends[0].setblocking(False)
    return ends


def send(end: socket.socket, sequence: int, descriptors: Sequence[int] = (), data: bytes | memoryview = b"") -> bool:
    """Pass descriptors or bytes to the worker. False: it does not read or is gone, or there are too many bytes."""
    if len(data) > LARGEST_INLINE:
        return False
    try:
        end.sendmsg([sequence.to_bytes(SEQUENCE_BYTES, "little"), data], rights(descriptors))
    except OSError:
        return False
    return True


class BufferInbox:
    """Used on the thread that runs the loop."""

    def __init__(self, descriptor: int) -> None:
        self._socket = OwnSocket(fileno=descriptor)
        self._socket.setblocking(False)
        self._socket.set_inheritable(False)
        self._head = bytearray(SEQUENCE_BYTES)
        self._buffer = ReceiveBuffer(LARGEST_INLINE)
        self._waiting: dict[int, Incoming] = {}  # by the sequence of their call, which comes next

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read the parts of a call when they come: the process is awake then, when the call comes a moment later."""
        loop.add_reader(self._socket, self._receive)

    def take(self, sequence: int) -> Incoming:
        """The parts of a call. Those of earlier calls are closed: these calls will not come any more."""
        waiting = self._waiting
        while (found := waiting.pop(sequence, None)) is None:
            if not self._receive():  # there are none: the command's check of its arguments reports it
                return Incoming()
        if waiting:
            for earlier in [one for one in waiting if one < sequence]:
                del waiting[earlier]
        return found

    def _receive(self) -> bool:
        """Take one datagram. False: there is none."""
        try:
            into = (self._head, self._buffer.memory)
            size, ancillary, _, _ = self._socket.recvmsg_into(into, ROOM, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return False
        if size < SEQUENCE_BYTES:  # the broker's end was shut down
            return False
        incoming = received(ancillary)
        incoming.inline = self._buffer.take(size - SEQUENCE_BYTES)  # the arrays of the call are made of it
        self._waiting[int.from_bytes(self._head, "little")] = incoming
        return True

    def close(self) -> None:
        self._socket.close()

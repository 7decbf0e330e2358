"""The worker's end of the socket on which the broker passes the large parts of arguments: descriptors, or bytes.

     broker ── datagram: sequence + descriptors or bytes ──▶ BufferInbox ── take(sequence) ──▶ AssignedCall.buffers
     broker ── Assign(sequence) ───────────────────────────▶ link

The broker sends the datagram first, so it is here when the call is.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from snakepit.workers.buffers import LARGEST_INLINE, ROOM, Incoming, received, rights
from snakepit.workers.memory_file import are_possible
from snakepit.workers.transport.own_files import OwnSocket

SEQUENCE_BYTES = 8


def pair() -> tuple[socket.socket, socket.socket] | None:
    """The broker's and the worker's end; None where descriptors cannot be passed."""
    if not are_possible():
        return None
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ends[0].setblocking(False)
    return ends


def send(end: socket.socket, sequence: int, descriptors: Sequence[int] = (), data: bytes = b"") -> bool:
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
        self._data: memoryview | None = None  # for bytes; most workers never get any

    def take(self, sequence: int) -> Incoming:
        """The parts of a call. Those of earlier calls are closed: these calls will not come any more."""
        if self._data is None:
            self._data = memoryview(bytearray(LARGEST_INLINE))
        into, head = (self._head, self._data), self._head
        while True:
            try:
                size, ancillary, _, _ = self._socket.recvmsg_into(into, ROOM, socket.MSG_CMSG_CLOEXEC)
            except OSError:  # there are none: the command's check of its arguments reports it
                return Incoming()
            incoming = received(ancillary)
            if int.from_bytes(head, "little") == sequence:
                # A copy of its own, which the arrays of the call are made of.
                incoming.inline = bytearray(self._data[: size - SEQUENCE_BYTES])
                return incoming

    def close(self) -> None:
        self._socket.close()

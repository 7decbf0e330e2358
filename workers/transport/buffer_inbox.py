"""The worker's end of the socket on which the broker passes the descriptors of large arguments.

     broker ── datagram: sequence + descriptors ──▶ BufferInbox ── take(sequence) ──▶ AssignedCall.buffers
     broker ── Assign(sequence) ──────────────────▶ link

The broker sends the datagram first, so it is here when the call is.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from snakepit.workers.buffers import ROOM, Incoming, received, rights
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


def send(end: socket.socket, sequence: int, descriptors: Sequence[int]) -> bool:
    """Pass descriptors to the worker. False: it does not read, or is gone."""
    try:
        end.sendmsg([sequence.to_bytes(SEQUENCE_BYTES, "little")], rights(descriptors))
    except OSError:
        return False
    return True


class BufferInbox:
    """Used on the thread that runs the loop."""

    def __init__(self, descriptor: int) -> None:
        self._socket = OwnSocket(fileno=descriptor)
        self._socket.setblocking(False)
        self._socket.set_inheritable(False)

    def take(self, sequence: int) -> Incoming:
        """The descriptors of a call. Those of earlier calls are closed: these calls will not come any more."""
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(SEQUENCE_BYTES, ROOM, socket.MSG_CMSG_CLOEXEC)
            except OSError:  # there are none: the command's check of its arguments reports it
                return Incoming()
            incoming = received(ancillary)
            if int.from_bytes(data, "little") == sequence:
                return incoming

    def close(self) -> None:
        self._socket.close()

"""Sends the descriptors of large arguments to the broker, each time right before their call.

A broker without the socket, on another host or that does not read for some seconds gets the parts in the call itself.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct

from snakepit.pools.client.address import LONGEST_PATH
from snakepit.workers.buffers import Outgoing, rights
from snakepit.workers.memory_file import are_possible
from snakepit.workers.transport import BUFFERS, is_on
from snakepit.workers.transport.own_files import OwnSocket

SOCKET = "buffers.sock"  # beside the broker's own
BUSY_SECONDS = 2  # that a broker may leave its socket full


class BufferSender:
    """One of each session."""

    def __init__(self, broker: str, *, taken: bool) -> None:
        """`broker`: the path of its socket; empty: it is on another host. `taken`: results may bring descriptors."""
        self.taken = taken
        self._socket: socket.socket | None = None
        path = os.path.join(os.path.dirname(broker), SOCKET)
        if broker and is_on(BUFFERS) and are_possible() and len(os.fsencode(path)) <= LONGEST_PATH:
            made = OwnSocket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", BUSY_SECONDS, 0))
                made.connect(path)
            except OSError:  # the broker has none
                made.close()
                return
            self._socket = made

    def send(self, buffers: Outgoing) -> int:
        """Send descriptors; return the number under which the call names them, 0 if it must bring the parts itself."""
        if self._socket is None or not buffers.files:
            return 0
        number = secrets.randbits(63) + 1
        try:
            self._socket.sendmsg([number.to_bytes(8, "little")], rights(buffers.seal()))
        except OSError:  # the broker is gone or does not read, or too many descriptors are on the way
            return 0
        return number

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

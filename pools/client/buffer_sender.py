"""Sends the large parts of arguments to the broker, each time right before their call.

     parts in memory files ──▶ their descriptors       some ten kilobytes ──▶ the bytes in the datagram

A datagram passes the broker in two system calls. In the call itself the same bytes pass the frames of HTTP/2 and two
messages, whose copies take longer than the rest of the call. A broker without the socket, on another host or that does
not read gets the parts in the call itself.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
from itertools import count

from snakepit.pools.client.address import LONGEST_PATH
from snakepit.workers.buffers import Outgoing, rights
from snakepit.workers.kept_files import files
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
        self._numbers = count(secrets.randbits(62) + 1)  # no other session can name them
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
            files.start(asyncio.get_running_loop())

    def send(self, buffers: Outgoing) -> int:
        """Send the parts; return the number under which the call names them, 0 if it must bring them itself."""
        if self._socket is None:
            return 0
        number = next(self._numbers)
        head = number.to_bytes(8, "little")
        try:
            if buffers.files:
                buffers.collect()
                self._socket.sendmsg([head], rights(buffers.seal()))
            else:  # without waiting: the stream has more room
                self._socket.sendmsg([head, buffers.inline], (), socket.MSG_DONTWAIT)
        except OSError:  # the broker is gone or does not read, or too many descriptors or bytes are on the way
            return 0
        return number

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            files.stop()

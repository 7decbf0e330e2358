"""Large parts of values between a client and the workers of a test: the same memory files, passed without a socket.

     client ─ send(parts) ─▶ Passing ─ claim(number) ─▶ Broker ─ pass_buffers ─▶ worker      arguments
     client ◀─ Delivery and descriptors ─ Passing ◀──────────────────────────── worker       results

So `max_buffer` and `max_payload` bound the same values as in a real pool.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from snakepit.pools.adapters.grpc.buffer_intake import BufferCount, CallBuffers
from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.client.arguments import PASSES_BUFFERS
from snakepit.workers.buffers import LARGEST, Incoming, Outgoing, received
from snakepit.workers.transport.direct_reply import DirectReplySender

MOST_FILES = 10_000  # of the calls of a session
Taker = Callable[[bytes, Incoming], None]


class Passing:
    """One of each broker. It is the broker's intake, and what workers write results to."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._sent: dict[int, Incoming] = {}  # arguments whose call has not come yet
        self._takers: dict[str, Taker] = {}  # by the name of a client's reply socket

    # Arguments

    def send(self, buffers: Outgoing) -> int:
        """Pass the parts of a call's arguments; return their number."""
        if not PASSES_BUFFERS or not buffers.files:
            return 0
        number = next(self._numbers)
        self._sent[number] = copied(buffers.seal())
        return number

    def session(self) -> BufferCount:
        return BufferCount(MOST_FILES, LARGEST)

    def claim(self, number: int, session: BufferCount) -> CallBuffers:
        incoming = self._sent.pop(number, None)
        if incoming is None:
            raise BadRequest("buffer: its descriptors did not arrive; send them before the call")
        return CallBuffers(incoming, incoming.sizes(), (session,))

    # Results, as a worker's socket

    def open(self, taker: Taker) -> str:
        """Hand results to a client from now on; return the name of its reply socket."""
        name = f"r-{secrets.token_hex(4)}"
        self._takers[name] = taker
        return name

    def end(self, name: str) -> None:
        self._takers.pop(name, None)

    def sendto(self, data: bytes, address: str) -> int:
        """A result without buffers goes through the broker."""
        raise OSError("there is no socket")

    def sendmsg(self, parts: Sequence[bytes], ancillary: Iterable[Any], flags: int, address: str) -> int:
        taker = self._takers.get(os.path.basename(address))
        if taker is None:
            raise OSError("the client has gone")
        given = received((level, kind, bytes(data)) for level, kind, data in ancillary)
        descriptors, given.descriptors = given.descriptors, []  # they are the sender's, which closes them
        taker(b"".join(parts), copied(descriptors))
        return 0

    def close(self) -> None: ...


class MemoryReply(DirectReplySender):
    """A worker's direct replies: results with buffers reach the client in memory."""

    def __init__(self, worker: str, passing: Passing) -> None:
        self._worker = worker
        self._socket: Any = passing
        self._patient: Any = passing

    def _send(self, message: bytes, path: str) -> None:
        self._socket.sendto(message, path)


def copied(descriptors: Sequence[int]) -> Incoming:
    """The same files under descriptors of the receiver's own."""
    incoming = Incoming()
    for one in descriptors:
        incoming.add(os.dup(one))
    return incoming


class MemoryInbox:
    """The large arguments that the broker passed to a worker."""

    def __init__(self) -> None:
        self._passed: dict[int, Incoming] = {}

    def put(self, sequence: int, descriptors: Sequence[int]) -> None:
        self._passed[sequence] = copied(descriptors)

    def take(self, sequence: int) -> Incoming:
        return self._passed.pop(sequence, None) or Incoming()

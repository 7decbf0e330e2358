"""Receives the large parts of arguments from clients: descriptors, which it keeps until their call ends, or bytes.

     client ── datagram: number + descriptors ──▶ BufferIntake ── claim(number) ──▶ Request.buffers ──▶ worker
               datagram: number + bytes ────────▶              ── claim(number) ──▶ Request.attachments ──▶ worker
     client ── Call(buffer=number) ─────────────▶ session

A client sends the datagram before the call, so it is here when the call is. The broker never reads a buffer: it checks
its seals and its size, and passes the descriptor on. A buffer is closed with its call, however that ends: it
belongs to the call's request alone. Bytes count as a part of the call's message. What no call claims is closed after
some seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Sequence
from pathlib import Path

from snakepit.pools.adapters.grpc.unclaimed import Unclaimed
from snakepit.pools.broker.errors import BadRequest, QueueFull
from snakepit.workers.buffers import LARGEST_INLINE, ROOM, BufferInvalid, Incoming, received
from snakepit.workers.memory_file import are_possible
from snakepit.workers.transport import BUFFERS, is_on

LONGEST_PATH = 107  # bytes of a socket's path
NUMBER_BYTES = 8  # of a datagram: the number that its call names
UNCLAIMED_SECONDS = 5.0  # that the parts of arguments wait for their call at least, and at most twice as long
LARGEST_DATAGRAM = NUMBER_BYTES + LARGEST_INLINE + 1  # one more: the kernel cuts off what does not fit
MOST_READ = 1024  # datagrams, to find the one of a call; a socket holds fewer
SHARE = 4  # a quarter of the broker's descriptors may be open for calls, and a quarter of that for one session
MEMORY_SHARE = 2  # half of the machine's memory may be in arguments, and half of that in those of one session


class BufferCount:
    """What is open for the calls of one session, or of all: descriptors and bytes."""

    __slots__ = ("bytes", "files", "most_bytes", "most_files")

    def __init__(self, most_files: int, most_bytes: int) -> None:
        self.files = self.bytes = 0
        self.most_files, self.most_bytes = most_files, most_bytes

    def check(self, files: int, size: int) -> None:
        """Raise QueueFull if this much more is too much. While nothing is open, a call may have any number of bytes."""
        if self.files + files > self.most_files:
            raise QueueFull(
                f"{self.files} descriptors are open for large arguments and {self.most_files} may; wait for results, "
                "or raise the broker's limit of open files",
                retry_after=1.0,
            )
        if self.bytes and self.bytes + size > self.most_bytes:
            raise QueueFull(
                f"the large arguments of open calls have {self.bytes:,} bytes and may have {self.most_bytes:,}; "
                "wait for results",
                retry_after=1.0,
            )

    def add(self, files: int, size: int) -> None:
        self.files += files
        self.bytes += size


class CallBuffers:
    """The buffers of one call. They are closed with this object."""

    __slots__ = ("_counts", "_incoming", "size")

    def __init__(self, incoming: Incoming, size: int, counts: Sequence[BufferCount]) -> None:
        self.size = size
        self._incoming = incoming
        self._counts = counts
        for one in counts:
            one.add(len(incoming), size)

    @property
    def descriptors(self) -> Sequence[int]:
        return self._incoming.descriptors

    def __del__(self) -> None:
        for one in self._counts:
            one.add(-len(self._incoming), -self.size)
        self._incoming.close()


class BufferIntake:
    """The broker's socket for descriptors."""

    def __init__(self, path: Path) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = max(16, (soft if soft > 0 else 2**20) // SHARE)
        self._most_bytes = machine_memory() // MEMORY_SHARE
        self._total = BufferCount(self._most, self._most_bytes)
        self._path = path
        self._unclaimed = Unclaimed()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(path))
        self._loop.add_reader(self._socket.fileno(), self._receive)

    def session(self) -> BufferCount:
        """The count of a new session."""
        return BufferCount(max(8, self._most // SHARE), self._most_bytes // MEMORY_SHARE)

    def claim(self, number: int, session: BufferCount) -> CallBuffers | memoryview:
        """The parts that came under this number: files, or their bytes. Raises BadRequest or QueueFull."""
        for _ in range(MOST_READ):  # while others send all the time, there is always one more
            if (incoming := self._unclaimed.take(number)) is not None or not self._receive():
                break
        if incoming is None:
            raise BadRequest("buffer: its descriptors did not arrive; send them before the call")
        if isinstance(incoming, memoryview):
            return incoming
        try:
            size = incoming.sizes()
        except BufferInvalid as wrong:
            raise BadRequest(f"buffer: {wrong}") from None
        for one in (session, self._total):
            one.check(len(incoming), size)
        return CallBuffers(incoming, size, (session, self._total))

    def _receive(self) -> bool:
        """Take one datagram. False: there is none."""
        try:
            data, ancillary, _, _ = self._socket.recvmsg(LARGEST_DATAGRAM, ROOM, socket.MSG_CMSG_CLOEXEC)
        except OSError:  # nothing more, or closed
            return False
        number = int.from_bytes(data[:NUMBER_BYTES], "little")
        incoming = received(ancillary) if ancillary else None
        if incoming is not None and len(data) == NUMBER_BYTES and len(incoming):
            self._unclaimed.put(number, incoming)
        elif incoming is None and NUMBER_BYTES < len(data) < LARGEST_DATAGRAM:
            self._unclaimed.put(number, memoryview(data)[NUMBER_BYTES:])  # without a copy
        if self._timer is None and len(self._unclaimed):
            self._timer = self._loop.call_later(UNCLAIMED_SECONDS, self._expire)
        return True

    def _expire(self) -> None:
        self._timer = None
        if self._unclaimed.expire():
            self._timer = self._loop.call_later(UNCLAIMED_SECONDS, self._expire)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._unclaimed.clear()
        with contextlib.suppress(OSError):
            os.unlink(self._path)


def machine_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def open_intake(path: Path) -> BufferIntake | None:
    """The intake at a path; None where this system passes no descriptors, or the path is too long."""
    if not (is_on(BUFFERS) and are_possible()) or len(os.fsencode(path)) > LONGEST_PATH:
        return None
    return BufferIntake(path)

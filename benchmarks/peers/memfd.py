"""A bare memory file of Linux between two processes, with nothing of this project: what the kernel takes for it.

     caller ── a size ──▶ worker: make a file, compute in it, seal it ── its descriptor ──▶ caller: map it, drop it

The worker allocates the pages in the fastest way that was found: it writes zeros, and then maps what it wrote.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
ZEROS = memoryview(bytes(2**20))
MADV_POPULATE_READ = 22
SIZE_BYTES = 8


def computed(size: int) -> int:
    """A sealed memory file with an array of ones."""
    import numpy as np

    descriptor = os.memfd_create("bare", os.MFD_ALLOW_SEALING)
    at = 0
    while at < size:
        at += os.pwrite(descriptor, ZEROS[: size - at], at)
    with mmap.mmap(descriptor, size) as mapped:
        with contextlib.suppress(OSError):  # an older kernel
            mapped.madvise(MADV_POPULATE_READ)
        out = np.frombuffer(mapped, "f8")
        out += 1
        del out
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    return descriptor


def serve(end: socket.socket) -> None:
    while given := end.recv(SIZE_BYTES):
        descriptor = computed(int.from_bytes(given, "little"))
        socket.send_fds(end, [b"x"], [descriptor])
        os.close(descriptor)


class Files:
    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def array_of(self, size: int) -> None:
        """Receive an array and drop it."""
        self._end.send(size.to_bytes(SIZE_BYTES, "little"))
        _, (descriptor,), _, _ = socket.recv_fds(self._end, 1, 1)
        mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY).close()
        os.close(descriptor)


@contextmanager
def running() -> Iterator[Files]:
    ours, theirs = socket.socketpair()
    words = [sys.executable, "-m", "benchmarks.peers.memfd", str(theirs.fileno())]
    with ours, subprocess.Popen(words, pass_fds=[theirs.fileno()]) as worker:
        theirs.close()
        yield Files(ours)
        ours.close()
        worker.wait()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))

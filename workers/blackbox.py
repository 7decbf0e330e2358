"""What outlives a killed worker: the highest sequence that it began to run, in memory shared with its broker.

Calls with a higher sequence were handed over but never started; the broker may give them to another worker without
running anything twice. Behind the number, the worker's threads write their stacks when they are asked to (`stacks.py`).

>>> descriptor = make()
>>> worker, broker = BlackBox(descriptor), BlackBox(descriptor)
>>> worker.begin(7)
>>> broker.last_begun
7
>>> worker.close(); broker.close(); os.close(descriptor)
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import tempfile

SIZE = 64

_SEQUENCE = struct.Struct("<Q")


def make() -> int:
    """A descriptor for a new box, not inheritable; the launcher passes it on by name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("snakepit-blackbox", os.MFD_CLOEXEC)
    else:
        descriptor, path = tempfile.mkstemp(prefix="snakepit-blackbox-")
        os.unlink(path)
    os.ftruncate(descriptor, SIZE)
    fcntl.fcntl(
        descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND
    )  # never over the number
    return descriptor


class BlackBox:
    """Either end; it stays when the descriptor that it was made of is closed."""

    __slots__ = ("_descriptor", "_map")

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE)
        self._descriptor = os.dup(descriptor)

    def begin(self, sequence: int) -> None:
        """Written before the command runs, so that a kill at any point leaves the truth or errs towards "begun"."""
        _SEQUENCE.pack_into(self._map, 0, sequence)

    @property
    def last_begun(self) -> int:
        """0 if nothing was."""
        sequence: int = _SEQUENCE.unpack_from(self._map, 0)[0]
        return sequence

    @property
    def descriptor(self) -> int:
        """What is written to it lands behind the number. Not inherited by the programs that this process starts."""
        return self._descriptor

    def read_text(self, start: int, limit: int) -> bytes:
        """What was written behind the number, from byte `start` of it on."""
        return os.pread(self._descriptor, limit, SIZE + start)

    def forget_text(self) -> None:
        os.ftruncate(self._descriptor, SIZE)

    def close(self) -> None:
        self._map.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

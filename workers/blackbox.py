"""What outlives a killed worker: the highest sequence that it began to run, in memory shared with its broker.

Calls with a higher sequence were handed over but never started; the broker may give them to another worker without
running anything twice.

>>> descriptor = make()
>>> worker, broker = BlackBox(descriptor), BlackBox(descriptor)
>>> worker.begin(7)
>>> broker.last_begun
7
>>> worker.close(); broker.close(); os.close(descriptor)
"""

from __future__ import annotations

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
    return descriptor


class BlackBox:
    """Either end; the map stays when the descriptor is closed."""

    __slots__ = ("_map",)

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE)

    def begin(self, sequence: int) -> None:
        """Written before the command runs, so that a kill at any point leaves the truth or errs towards "begun"."""
        _SEQUENCE.pack_into(self._map, 0, sequence)

    @property
    def last_begun(self) -> int:
        """0 if nothing was."""
        sequence: int = _SEQUENCE.unpack_from(self._map, 0)[0]
        return sequence

    def close(self) -> None:
        self._map.close()

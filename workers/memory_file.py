"""Memory files that this process writes, and seals before another process gets their descriptors.

     append ─▶ write, or a map with huge pages ─▶ seal ─▶ the descriptor may leave

A memory file is a memfd of Linux. After `seal` nothing can change it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import socket
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

ALIGNMENT = 64  # bytes, for the items of arrays
WRITE_BYTES = 2**30  # of one write: the kernel takes at most 2 GiB
HUGE_PAGE = 2**21  # bytes; a smaller file has no use for one
HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
ZEROS = bytes(2**20)
MADV_POPULATE_READ = 22  # of Linux 5.14; Python has no name for it
MAP_FIXED = 0x10  # on Linux; Python has no name for it


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def seals() -> int:
    return fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def are_possible() -> bool:
    """Whether this system has sealed memory files and passes descriptors."""
    return hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS") and hasattr(socket, "MSG_CMSG_CLOEXEC")


def inode(descriptor: int) -> int:
    """Which file a number names; -1: none. Other code may close a descriptor of ours, and the number is used again."""
    try:
        return os.fstat(descriptor).st_ino
    except OSError as error:
        if error.errno is None:  # a TimeoutError of a signal handler, which came between
            raise
        return -1


def close(descriptor: int, known: int) -> None:
    """Close a descriptor if it still names the file of this inode."""
    if descriptor >= 0 and inode(descriptor) == known:
        os.close(descriptor)


class MemoryFile:
    """One memory file that this process writes. Its descriptor is closed with the object at the latest."""

    __slots__ = ("_inode", "descriptor", "size")

    def __init__(self) -> None:
        self.descriptor = -1
        self.descriptor = os.memfd_create("snakepit buffer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._inode = inode(self.descriptor)
        self.size = 0

    def append(self, data: Any) -> int:
        """Write bytes behind those that are there; return where they begin."""
        at = aligned(self.size)
        self._write(data, at)
        return at

    def extend(self, data: Any) -> None:
        """Write more bytes of the part that was appended last."""
        self._write(data, self.size)

    def _write(self, data: Any, at: int) -> None:
        view, end = memoryview(data).cast("B"), at
        if len(view) >= HUGE_PAGE and huge_pages():
            end = self._write_mapped(at, view)
        while end - at < len(view):  # a write may be cut short
            end += os.pwrite(self.descriptor, view[end - at : end - at + WRITE_BYTES], end)
        self.size = end

    def _write_mapped(self, at: int, view: memoryview) -> int:
        """Write through a map; return where the bytes end. `write` would not use huge pages."""
        end, start = at + len(view), at - at % mmap.ALLOCATIONGRANULARITY
        os.ftruncate(self.descriptor, end)
        with mmap.mmap(self.descriptor, end - start, offset=start) as mapped:
            mapped.madvise(mmap.MADV_HUGEPAGE)
            with memoryview(mapped) as target:
                target[at - start :] = view
        return end

    def cut(self, size: int) -> None:
        os.ftruncate(self.descriptor, size)
        self.size = size

    def seal(self) -> None:
        """Make it final. Raises OSError if its number names another file, which must not go to the receiver."""
        if not self._is_sealed():
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals() | fcntl.F_SEAL_SEAL)

    def _is_sealed(self) -> bool:
        if inode(self.descriptor) != self._inode:
            raise OSError(errno.EBADF, "the memory file was closed by other code of this process")
        return bool(fcntl.fcntl(self.descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SEAL)

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            close(descriptor, self._inode)

    def __del__(self) -> None:
        self.close()


class PlacedFile(MemoryFile):
    """A memory file that a command computes in. `memory` is its shared map."""

    __slots__ = ("address", "memory")

    def __init__(self, size: int) -> None:
        super().__init__()
        import ctypes  # few commands need it

        huge = size >= HUGE_PAGE and huge_pages()
        if huge:
            self.cut(size)
        else:
            self._write_zeros(size)
        self.memory = mmap.mmap(self.descriptor, size)
        with contextlib.suppress(OSError):  # an older kernel
            self.memory.madvise(mmap.MADV_HUGEPAGE if huge else MADV_POPULATE_READ)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    def _write_zeros(self, size: int) -> None:
        """Make the file. To write its pages and map them then takes less than to let a map find them one by one."""
        while self.size < size:
            self.size += os.pwrite(self.descriptor, memoryview(ZEROS)[: size - self.size], self.size)

    def seal(self) -> None:
        """Replace the shared map by a private one at the same address, and seal.

        The kernel refuses the seal while a writable shared map lives, and an array of the command may still be in use.
        """
        if self._is_sealed():  # by a try to send it; a second private map would drop what was written since
            return
        rights, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | MAP_FIXED
        if _system_mmap()(self.address, self.size, rights, flags, self.descriptor, 0) != self.address:
            raise OSError("the map of a buffer cannot be made private")
        super().seal()


@lru_cache(maxsize=1)
def huge_pages() -> bool:
    """Whether the kernel gives huge pages to memory files that ask for them. By default it does not."""
    try:
        with open(HUGE_PAGES) as file:
            return not {"[never]", "[deny]"} & set(file.read().split())
    except OSError:  # a kernel without them
        return False


@lru_cache(maxsize=1)
def _system_mmap() -> Callable[..., int]:
    """The mmap of the C library: Python's own has no address."""
    import ctypes

    found = ctypes.CDLL(None).mmap
    found.restype = ctypes.c_void_p
    found.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *3 * (ctypes.c_int,), ctypes.c_long)
    return cast("Callable[..., int]", found)

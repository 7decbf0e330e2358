"""Memory files that this process writes, and seals before another process gets their descriptors.

     append ─▶ write, or a map with huge pages ─▶ seal ─▶ the descriptor may leave

A memory file is a memfd of Linux. After `seal` nothing can change it, apart from files that this process keeps
(kept_files.py): those it writes again when no other process has them any more.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import socket
from functools import lru_cache
from typing import Any

from snakepit.workers import memory_maps
from snakepit.workers.kept_files import NAME, KeptFile, close, files, inode

ALIGNMENT = 64  # bytes, for the items of arrays
WRITE_BYTES = 2**30  # of one write: the kernel takes at most 2 GiB
HUGE_PAGE = 2**21  # bytes; a smaller file has no use for one
HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
ZEROS = bytes(2**20)
CLOSED = "the memory file was closed by other code of this process"


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def seals() -> int:
    return fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def are_possible() -> bool:
    """Whether this system has sealed memory files and passes descriptors."""
    return hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS") and hasattr(socket, "MSG_CMSG_CLOEXEC")


class MemoryFile:
    """One memory file that this process writes. Its descriptor is closed with the object at the latest."""

    __slots__ = ("_inode", "descriptor", "size")

    def __init__(self) -> None:
        self.descriptor = -1
        self.descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
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
            raise OSError(errno.EBADF, CLOSED)
        return bool(fcntl.fcntl(self.descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SEAL)

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            close(descriptor, self._inode)

    def __del__(self) -> None:
        self.close()


class KeptCopy(MemoryFile):
    """A part that is copied into a kept file. `descriptor` is the read-only one of a receiver."""

    __slots__ = ("_kept",)

    def __init__(self, kept: KeptFile, data: memoryview) -> None:
        self._kept, self.descriptor = kept, -1
        self.descriptor = kept.open_again()
        self._inode = kept.inode
        self.size = len(data)
        if kept.is_sealed or (self.size >= HUGE_PAGE and huge_pages()):
            self._write_mapped_pages(data)
        else:  # without the map, which would find page after page
            kept.map()
            at = 0
            while at < self.size:  # a write may be cut short
                at += os.pwrite(kept.descriptor, data[at : at + WRITE_BYTES], at)

    def _write_mapped_pages(self, data: memoryview) -> None:
        kept = self._kept
        if not kept.address:
            kept.map()
            memory_maps.advise(kept.address, kept.size, mmap.MADV_HUGEPAGE)
        kept.populate()
        memory_maps.copy(kept.address, data)
        memory_maps.clear(kept.address + self.size, kept.size - self.size)  # of an earlier value

    def seal(self) -> None:
        if inode(self.descriptor) != self._inode or inode(self._kept.descriptor) != self._inode:
            raise OSError(errno.EBADF, CLOSED)
        self._kept.seal()

    def close(self) -> None:
        if self.descriptor >= 0:
            super().close()
            files.keep(self._kept)


class PlacedFile(MemoryFile):
    """A memory file that a command computes in. `memory` is its shared map."""

    __slots__ = ("_forks", "_is_sent", "_kept", "address", "is_final", "memory")

    def __init__(self, size: int) -> None:
        """A file of zeros."""
        self.descriptor = -1
        self.is_final = False  # its receiver needs bytes that never change
        self._is_sent = False
        self._kept: KeptFile | None = None
        self._kept = files.take(size)
        if self._kept is None:
            super().__init__()
            self._fill(size, self.descriptor)
            self.memory = mmap.mmap(self.descriptor, size)
            self.address = memory_maps.address_of(self.memory)
            self._map_pages()
            return
        self.descriptor, self._inode = self._kept.open_again(), self._kept.inode
        self.memory = mmap.mmap(-1, self._kept.size)  # for its address
        self.address = memory_maps.address_of(self.memory)
        self._forks = files.forks
        if self._kept.address:
            self._kept.move_to(self.address)
            memory_maps.clear(self.address, self._kept.size)
            self.size = size
        else:
            self._fill(size, self._kept.descriptor)
            memory_maps.map_shared(self._kept.descriptor, self._kept.size, self.address)
            self._map_pages()

    def _fill(self, size: int, descriptor: int) -> None:
        """Make the pages. To write them and then map them takes less than to let a map find them one by one."""
        self.size = 0
        if size >= HUGE_PAGE and huge_pages():
            if self._kept is None:
                os.ftruncate(descriptor, size)
            self.size = size
        while self.size < size:
            self.size += os.pwrite(descriptor, memoryview(ZEROS)[: size - self.size], self.size)

    def _map_pages(self) -> None:
        huge = self.size >= HUGE_PAGE and huge_pages()
        with contextlib.suppress(OSError):  # an older kernel
            self.memory.madvise(mmap.MADV_HUGEPAGE if huge else memory_maps.MADV_POPULATE_READ)

    def seal(self) -> None:
        """Replace the shared map by a private one at the same address, and seal.

        An array of the command may still be in use, and what it writes from now on stays its own. The kernel refuses
        the seal against each write while a writable shared map lives.
        """
        if inode(self.descriptor) != self._inode:
            raise OSError(errno.EBADF, CLOSED)
        if self._is_sent:  # by a try to send it; a second private map would drop what was written since
            return
        kept, keeps_map = self._kept, self._kept is not None and not self.is_final and self._take_map_back()
        try:
            memory_maps.map_private(self.descriptor, len(self.memory), self.address)
            if kept is not None and keeps_map and files.forks == self._forks:
                kept.seal()
            else:  # also if a forked child may have the shared map
                if kept is not None:
                    kept.unmap()
                descriptor = self.descriptor if kept is None else kept.descriptor
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals() | fcntl.F_SEAL_SEAL)
        except OSError:
            self.is_final = True  # the map at the address may be the private one now, which the next try must not keep
            if kept is not None:
                kept.unmap()  # the command may still write to the file
            raise
        self._is_sent = True

    def _take_map_back(self) -> bool:
        assert self._kept is not None
        try:
            self._kept.move_away(self.address)
        except OSError:  # a kernel before Linux 5.13
            return False
        return True

    def close(self) -> None:
        if self.descriptor >= 0:
            super().close()
            if self._kept is not None:
                files.keep(self._kept)


@lru_cache(maxsize=1)
def huge_pages() -> bool:
    """Whether the kernel gives huge pages to memory files that ask for them. By default it does not."""
    try:
        with open(HUGE_PAGES) as file:
            return not {"[never]", "[deny]"} & set(file.read().split())
    except OSError:  # a kernel without them
        return False

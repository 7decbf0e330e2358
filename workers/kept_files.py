"""Memory files that this process has sent, kept to be written again: their pages are there, and mapped.

     take(size) ─▶ KeptFile ─ write, seal, send a read-only descriptor ─▶ keep ─▶ [idle] ─ take(size), if it is free
                                                                                    └───── some seconds later: closed

In a new file of 100 MB the kernel clears and maps 24,400 pages, which takes longer than to write them.

A kept file has the seal F_SEAL_FUTURE_WRITE: only the map that this process made before can change it. A file is
written again when nothing else has it. The kernel says so: it gives a write lease only on a file that is open once. It
counts every open file description, also on its way in a socket, or behind a map. So what is sent is never the
descriptor of this process, but a read-only one of a second open. Where the kernel gives no lease, nothing is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import mmap
import os
import signal
import threading
import time
from functools import lru_cache

from snakepit.workers import memory_maps
from snakepit.workers.memory_maps import PAGE

NAME = "snakepit buffer"
FUTURE_WRITE = 0x10  # F_SEAL_FUTURE_WRITE of Linux 5.1; Python has no name for it
KEPT_SEALS = 0x02 | 0x04 | FUTURE_WRITE  # SHRINK, GROW
LEAST = 256 * 1024  # bytes; a smaller file costs less to make than to keep
MOST_BYTES = 256 * 2**20  # of all kept files, where no memory limit says less
MOST_FILES = 8
IDLE_SECONDS = 5.0  # that a file is kept


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


class KeptFile:
    """A memory file that this process may write again. Its size is in whole pages."""

    __slots__ = ("address", "descriptor", "inode", "is_populated", "is_sealed", "pid", "since", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.address = 0  # of its writable map; 0: it has none at the moment
        self.is_sealed = self.is_populated = False
        self.since = 0.0  # when it was kept
        self.pid = os.getpid()
        self.descriptor = self.inode = -1
        first = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            # The kernel does not count the first descriptor of a memory file as an open one.
            self.descriptor = os.open(f"/proc/self/fd/{first}", os.O_RDWR | os.O_CLOEXEC)
        finally:
            os.close(first)
        self.inode = inode(self.descriptor)
        os.ftruncate(self.descriptor, size)
        # Another process that opens the file during a lease would end this one by the default signal, SIGIO.
        fcntl.fcntl(self.descriptor, fcntl.F_SETSIG, signal.SIGURG)

    def map(self) -> None:
        """Make the writable map. A fork does not get it: parent and child would be two writers."""
        self.address = memory_maps.map_shared(self.descriptor, self.size)
        memory_maps.advise(self.address, self.size, mmap.MADV_DONTFORK)

    def unmap(self) -> None:
        """A forked child has no map, and may have something else there."""
        address, self.address = self.address, 0
        if address and self.pid == os.getpid():
            memory_maps.unmap(address, self.size)

    def move_to(self, address: int) -> None:
        """Put the map in the place of another one, which is not of this object."""
        memory_maps.move(self.address, self.size, address)
        self.address = 0
        memory_maps.advise(address, self.size, mmap.MADV_DOFORK)  # processes of a command may compute in it together

    def move_away(self, address: int) -> None:
        """Take the map back from there."""
        self.address = memory_maps.move_away(address, self.size)
        memory_maps.advise(self.address, self.size, mmap.MADV_DONTFORK)
        self.is_populated = True

    def populate(self) -> None:
        """Fill the page tables of the map, at once instead of page by page."""
        if not self.is_populated:
            with contextlib.suppress(OSError):  # an older kernel
                memory_maps.advise(self.address, self.size, memory_maps.MADV_POPULATE_WRITE)
            self.is_populated = True

    def seal(self) -> None:
        if not self.is_sealed:
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, KEPT_SEALS)
            self.is_sealed = True

    def open_again(self) -> int:
        """A read-only descriptor, for a receiver."""
        return os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDONLY | os.O_CLOEXEC)

    def is_free(self) -> bool:
        """Whether no descriptor and no map of another open is left, here or in another process."""
        if inode(self.descriptor) != self.inode:
            return False
        try:
            fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:
            return False
        fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return True

    def close(self) -> None:
        """Safe to call twice."""
        self.unmap()
        descriptor, self.descriptor = self.descriptor, -1
        close(descriptor, self.inode)

    def __del__(self) -> None:
        self.close()


class KeptFiles:
    """Those of this process. Used from any thread; no call of it waits, because a signal handler may send values."""

    def __init__(self) -> None:
        self.forks = 0  # begins and ends of forks of this process so far
        self.most_bytes = MOST_BYTES
        self._reset()

    def _reset(self) -> None:
        self._files: list[KeptFile] = []  # those kept longest first
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_timer = False
        self._users = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Keep files until `stop`. The loop closes them in time."""
        self._users += 1
        if self._loop is not loop:
            self._loop, self._has_timer = loop, False

    def stop(self) -> None:
        """One of those that called `start` sends no more. After the last one, close all files."""
        self._users -= 1
        if self._users > 0:
            return
        self._loop = None
        if self._lock.acquire(blocking=False):
            gone, self._files = self._files, []
            self._lock.release()
            for one in gone:
                one.close()

    def take(self, size: int) -> KeptFile | None:
        """A file for so many bytes, kept or new. None: such a file is not kept, or cannot be made."""
        if self._loop is None or not LEAST <= size <= self.most_bytes or not are_possible():
            return None
        pages = -(-size // PAGE) * PAGE
        if self._files and self._lock.acquire(blocking=False):
            try:
                for one in reversed(self._files):
                    if one.size == pages and one.is_free():
                        self._files.remove(one)
                        return one
            finally:
                self._lock.release()
        try:
            return KeptFile(pages)
        except OSError:
            return None

    def keep(self, file: KeptFile) -> None:
        """Keep a file that was sent. One that was not, or cannot be written again, is closed."""
        gone = [file]
        can = self._loop is not None and file.address and file.is_sealed and file.pid == os.getpid()
        if can and self._lock.acquire(blocking=False):
            try:
                file.populate()  # also so that the process is charged for it
                file.since = time.monotonic()
                self._files.append(file)
                gone = self._beyond_bounds()
                if self._loop is not None and not self._has_timer:
                    self._loop.call_soon_threadsafe(self._wait)
                    self._has_timer = True
            except RuntimeError:  # the loop is closed: nothing would close the files
                gone, self._files, self._loop = self._files, [], None
            finally:
                self._lock.release()
        for one in gone:
            one.close()

    def _beyond_bounds(self) -> list[KeptFile]:
        gone = []
        while len(self._files) > MOST_FILES or sum(one.size for one in self._files) > self.most_bytes:
            gone.append(self._files.pop(0))
        return gone

    def _wait(self) -> None:
        if self._loop is not None:
            self._loop.call_later(IDLE_SECONDS, self._expire)

    def _expire(self) -> None:
        """On the loop's thread: close what was kept for long."""
        gone: list[KeptFile] = []
        if self._lock.acquire(blocking=False):
            try:
                until = time.monotonic() - IDLE_SECONDS
                gone = [one for one in self._files if one.since <= until]
                self._files = [one for one in self._files if one.since > until]
                self._has_timer = bool(self._files)
            finally:
                self._lock.release()
        if self._has_timer:
            self._wait()
        for one in gone:
            one.close()

    def count_fork(self) -> None:
        self.forks += 1

    def forget(self) -> None:
        """In the child of a fork: its files are those of the parent, which writes them again."""
        for one in self._files:
            one.close()
        self._reset()


@lru_cache(maxsize=1)
def are_possible() -> bool:
    """Whether the kernel has the seal, and gives no lease while a file is open elsewhere. Tried once with a page."""
    if not (hasattr(os, "memfd_create") and hasattr(fcntl, "F_SETLEASE") and hasattr(mmap, "MADV_DONTFORK")):
        return False
    try:
        file = KeptFile(PAGE)
        file.map()
        file.seal()
        if not file.is_free():
            return False
        other = file.open_again()
        is_open = not file.is_free()
        mapped = mmap.mmap(-1, PAGE)
        memory_maps.map_private(other, PAGE, memory_maps.address_of(mapped))
        os.close(other)
        is_mapped = not file.is_free()
        mapped.close()
        return is_open and is_mapped and file.is_free()
    except OSError:  # no /proc, an older kernel, or leases are off
        return False


files = KeptFiles()
os.register_at_fork(before=files.count_fork, after_in_parent=files.count_fork, after_in_child=files.forget)

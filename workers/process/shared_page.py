"""64 bytes shared by a worker and its broker: the highest sequence that the worker began, and the revoked sequences.

They outlive a killed worker. Calls with a higher sequence were prefetched and never began: the broker may give them to
another worker, and nothing runs twice. Behind these bytes the worker's threads write their stacks (`stacks.py`).
The file keeps its size: a process that reads a map beyond the end of its file gets SIGBUS, and the broker must not end
because code of a worker truncates files.

The broker may also revoke prefetched calls of a worker that reads no messages, for instance because native code holds
the GIL. The broker writes which sequences are revoked; the worker reads that after it has written what it begins.

    worker:  begun = 7 ─▶ is 7 revoked? ─▶ run it      broker:  revoke 7 to 9 ─▶ wait ─▶ begun < 7? none ran
                              └─ yes: write it as skipped, and report it as revoked

One of the two always reads what the other wrote: each writes first and reads second. The broker waits for milliseconds
in between, far longer than a written value can stay invisible to another core. Each number is written in one piece.

>>> descriptor = make()
>>> worker, broker = SharedPage(descriptor), SharedPage(descriptor)
>>> worker.begin(7)
>>> broker.last_begun
7
>>> broker.revoke(8, 9)
>>> [worker.is_revoked(sequence) for sequence in (7, 8, 9, 10)]
[False, True, True, False]
>>> worker.close(); broker.close(); os.close(descriptor)
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import NamedTuple

SIZE = 64
ROOM = 1 << 20  # bytes for the stacks behind it; the kernel takes memory for what is written only
BEGUN, FIRST, LAST, SKIPPED = 0, 1, 2, 3  # indexes of the page's eight numbers; four are in use


def make() -> int:
    """Make a new page; returns its descriptor, which the launcher passes to the worker explicitly."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("snakepit-shared_page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        import tempfile

        descriptor, path = tempfile.mkstemp(prefix="snakepit-shared_page-")
        os.unlink(path)
    os.ftruncate(descriptor, SIZE + ROOM)
    if hasattr(os, "memfd_create"):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    os.lseek(descriptor, SIZE, os.SEEK_SET)  # text never goes over the numbers; all copies share the position
    return descriptor


class BegunRecord(NamedTuple):
    """The page's numbers at one moment.

    >>> record = BegunRecord(begun=9, first=5, last=8, skipped=7)
    >>> [sequence for sequence in range(4, 11) if record.has_begun(sequence)]
    [4, 5, 6, 9]
    """

    begun: int = 0
    first: int = 0
    last: int = 0
    skipped: int = 0

    def has_begun(self, sequence: int) -> bool:
        """Whether the worker may have run it. Of a revoked range, it ran none from the first skipped one on."""
        return sequence <= self.begun and not self.first <= self.skipped <= sequence <= self.last


class SharedPage:
    """Either end of the page. It stays valid when the descriptor that it was made from is closed."""

    __slots__ = ("_descriptor", "_map", "_numbers")

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE)
        self._numbers = memoryview(self._map).cast("Q")  # native: an item is written by one store, never half
        self._descriptor = os.dup(descriptor)

    def begin(self, sequence: int) -> None:
        """Write it before the command runs: after a kill, at most a call that did not quite begin counts as begun."""
        self._numbers[BEGUN] = sequence

    @property
    def last_begun(self) -> int:
        """0 if no call has begun."""
        return self._numbers[BEGUN]

    def revoke(self, first: int, last: int) -> None:
        """Forbid these sequences (broker). The worker must have passed all that were revoked before."""
        self._numbers[FIRST] = first  # this one first: with the old end, which is lower, the range is empty meanwhile
        self._numbers[LAST] = last

    def is_revoked(self, sequence: int) -> bool:
        """Whether a sequence is revoked (worker, after `begin`): then it must not run the call."""
        numbers = self._numbers
        if not numbers[FIRST] <= sequence <= numbers[LAST]:
            return False
        if numbers[SKIPPED] < numbers[FIRST]:
            numbers[SKIPPED] = sequence  # the first of this range; those behind it are skipped as well
        return True

    def record(self) -> BegunRecord:
        """A copy of the numbers, for when the worker is gone."""
        return BegunRecord(*self._numbers[:4])

    @property
    def descriptor(self) -> int:
        """Text written to it goes behind the numbers. Programs that this process starts do not inherit it."""
        return self._descriptor

    def read_text(self, start: int, limit: int) -> bytes:
        """Read the text behind the numbers, from its byte `start` on."""
        written = os.lseek(self._descriptor, 0, os.SEEK_CUR) - SIZE - start
        return os.pread(self._descriptor, max(0, min(limit, written)), SIZE + start)

    def forget_text(self) -> None:
        os.lseek(self._descriptor, SIZE, os.SEEK_SET)

    def close(self) -> None:
        self._numbers.release()
        self._map.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

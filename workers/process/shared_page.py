"""What outlives a killed worker: the highest sequence that it began to run, in memory shared with its broker.

Calls with a higher sequence were handed over but never started; the broker may give them to another worker without
running anything twice. Behind the number, the worker's threads write their stacks when they are asked to (`stacks.py`).

It may also take unbegun calls back from a worker that is too busy to listen, whose native code holds the GIL for
instance: it writes which sequences are revoked, and the worker looks there after it wrote what it begins.

    worker:  begun = 7 ─▶ is 7 revoked? ─▶ run it      broker:  revoke 7 to 9 ─▶ wait ─▶ begun < 7? all mine
                              └─ yes: note it as skipped, and give it back

One of the two always sees the other's note: each writes first and reads second, and the broker's wait of milliseconds
is longer by far than a written value can be hidden from another core. Each number is written in one piece.

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
import tempfile
from typing import NamedTuple

SIZE = 64
BEGUN, FIRST, LAST, SKIPPED = 0, 1, 2, 3  # which of the box's eight numbers is what


def make() -> int:
    """A descriptor for a new box, not inheritable; the launcher passes it on by name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("snakepit-shared_page", os.MFD_CLOEXEC)
    else:
        descriptor, path = tempfile.mkstemp(prefix="snakepit-shared_page-")
        os.unlink(path)
    os.ftruncate(descriptor, SIZE)
    fcntl.fcntl(
        descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND
    )  # never over the number
    return descriptor


class BegunRecord(NamedTuple):
    """The box's numbers at a moment.

    >>> record = BegunRecord(begun=9, first=5, last=8, skipped=7)
    >>> [sequence for sequence in range(4, 11) if record.has_begun(sequence)]
    [4, 5, 6, 9]
    """

    begun: int = 0
    first: int = 0
    last: int = 0
    skipped: int = 0

    def has_begun(self, sequence: int) -> bool:
        """Whether the worker may have run it. Of a revoked range it ran none from the first on that it skipped."""
        return sequence <= self.begun and not self.first <= self.skipped <= sequence <= self.last


class SharedPage:
    """Either end; it stays when the descriptor that it was made of is closed."""

    __slots__ = ("_descriptor", "_map", "_numbers")

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE)
        self._numbers = memoryview(self._map).cast("Q")  # native: an item is written by one store, never half
        self._descriptor = os.dup(descriptor)

    def begin(self, sequence: int) -> None:
        """Written before the command runs, so that a kill at any point leaves the truth or errs towards "begun"."""
        self._numbers[BEGUN] = sequence

    @property
    def last_begun(self) -> int:
        """0 if nothing was."""
        return self._numbers[BEGUN]

    def revoke(self, first: int, last: int) -> None:
        """The broker's: these sequences are not to be begun. Those revoked before must all be behind the worker."""
        self._numbers[FIRST] = first  # first: with the old end, which is lower, the range is empty meanwhile
        self._numbers[LAST] = last

    def is_revoked(self, sequence: int) -> bool:
        """The worker's, after `begin`: if so, it must not run the call."""
        numbers = self._numbers
        if not numbers[FIRST] <= sequence <= numbers[LAST]:
            return False
        if numbers[SKIPPED] < numbers[FIRST]:
            numbers[SKIPPED] = sequence  # the first of this range; those behind it are skipped as well
        return True

    def record(self) -> BegunRecord:
        """What is to be known of the calls when the worker is gone."""
        return BegunRecord(*self._numbers[:4])

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
        self._numbers.release()
        self._map.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

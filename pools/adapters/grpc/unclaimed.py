"""The large parts of arguments whose call has not come yet. A client may send any number of them and no call.

>>> waiting = Unclaimed()
>>> waiting.put(7, memoryview(b"bytes of a part"))
>>> waiting.expire(), bytes(waiting.take(7)), waiting.take(7)
(True, b'bytes of a part', None)
"""

from __future__ import annotations

from collections import OrderedDict

from snakepit.workers.buffers import Incoming

MOST_CALLS = 256  # whose descriptors wait; beyond it the oldest are closed
MOST_BYTES = 2**26  # of the calls whose bytes wait; beyond it the oldest are dropped


class Unclaimed:
    """Parts by the number that their call will name."""

    def __init__(self) -> None:
        self._files: OrderedDict[int, Incoming] = OrderedDict()
        self._copied: OrderedDict[int, memoryview] = OrderedDict()
        self._bytes = 0
        self._overdue: set[int] = set()

    def __len__(self) -> int:
        return len(self._files) + len(self._copied)

    def put(self, number: int, parts: Incoming | memoryview) -> None:
        self.take(number)
        if isinstance(parts, Incoming):
            self._files[number] = parts
            if len(self._files) > MOST_CALLS:
                self._files.popitem(last=False)
            return
        self._copied[number] = parts
        self._bytes += len(parts)
        while self._bytes > MOST_BYTES:
            self._bytes -= len(self._copied.popitem(last=False)[1])

    def take(self, number: int) -> Incoming | memoryview | None:
        copied = self._copied.pop(number, None)
        if copied is None:
            return self._files.pop(number, None)
        self._bytes -= len(copied)
        return copied

    def expire(self) -> bool:
        """Drop what waited at the last call of this already; return whether anything waits.

        It measures no time: a process that was stopped meanwhile must read the calls that came in that time first.
        """
        for number in self._overdue:
            self.take(number)
        self._overdue = {*self._files, *self._copied}
        return bool(self._overdue)

    def clear(self) -> None:
        self._files.clear()
        self._copied.clear()
        self._bytes = 0

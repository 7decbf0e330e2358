"""The memory that datagrams are received into. A large one is handed over with its memory instead of being copied.

>>> buffer = ReceiveBuffer(8)
>>> buffer.memory[:5] = b"large"
>>> buffer.take(5), buffer.memory
(bytearray(b'large'), bytearray(b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00'))
"""

from __future__ import annotations


class ReceiveBuffer:
    """Room for one datagram."""

    __slots__ = ("_memory", "_room")

    def __init__(self, room: int) -> None:
        self._room = room
        self._memory: bytearray | None = None  # most processes never get a datagram with parts

    @property
    def memory(self) -> bytearray:
        if self._memory is None:
            self._memory = bytearray(self._room)
        return self._memory

    def take(self, size: int) -> bytearray:
        """The first bytes. Those of a small datagram are copied, so that what is kept takes at most twice its size."""
        memory = self.memory
        if size * 2 < len(memory):
            return memory[:size]
        self._memory = None
        del memory[size:]
        return memory

"""What a stream does with a message that is larger than its receiver takes now."""

from __future__ import annotations

from typing import Protocol


class Oversize(Protocol):
    """Refuses a message by its declared length and its first bytes; the rest is dropped as it arrives."""

    def takes_over(self, head: bytes | memoryview, length: int) -> bool:
        """Whether it has refused the message. False: the stream buffers what came, and asks again with more."""

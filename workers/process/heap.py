"""Keeps the C library from giving freed memory back after each large message.

The allocator of glibc returns the free end of its heap beyond 128 KiB to the kernel. A call with 100 kB frees some such
blocks, and the next call gets each page again from the kernel, which clears it: 68 page faults, a third of the worker's
CPU for the call.
"""

from __future__ import annotations

KEPT = 2**20  # bytes: glibc keeps up to twice as many at the end of a heap


def keep_freed_memory() -> None:
    """Raise the bound, for this process and those that it forks.

    glibc adapts it to the largest block that was freed and had a map of its own, up to 32 MiB. The block is not written
    to, so it takes no memory. The function changes nothing with another C library.
    """
    bytes(KEPT)  # freed immediately; `bytearray` would write zeros to each page

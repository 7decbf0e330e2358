"""Maps of memory files at a given address, and moves of them, by the C library: Python's `mmap` has neither.

Each function raises OSError.
"""

from __future__ import annotations

import mmap
import os
import sys
from functools import lru_cache
from typing import Any

PAGE = mmap.PAGESIZE
READ_AND_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
MAP_FIXED = 0x10  # on Linux; Python has no names for these
MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 1, 2, 4
MADV_POPULATE_READ, MADV_POPULATE_WRITE = 22, 23  # of Linux 5.14


@lru_cache(maxsize=1)
def _library() -> Any:
    import ctypes  # few processes need it

    found = ctypes.CDLL(None, use_errno=True)
    size, number, address = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
    found.mmap.argtypes, found.mmap.restype = (address, size, number, number, number, ctypes.c_long), address
    found.mremap.argtypes, found.mremap.restype = (address, size, size, number, address), address
    found.munmap.argtypes = (address, size)
    found.madvise.argtypes = (address, size, number)
    return found


def _checked(result: int | None) -> int:
    """What a function returned; an address is never -1 in any width."""
    import ctypes

    if result is None or result in (-1, ctypes.c_void_p(-1).value):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def map_shared(descriptor: int, size: int, at: int = 0) -> int:
    """Map a file, writable; return the address. `at`: replace the map there."""
    flags = mmap.MAP_SHARED | (MAP_FIXED if at else 0)
    return _checked(_library().mmap(at or None, size, READ_AND_WRITE, flags, descriptor, 0))


def map_private(descriptor: int, size: int, at: int) -> None:
    """Replace the map at an address by a private one of this file."""
    _checked(_library().mmap(at, size, READ_AND_WRITE, mmap.MAP_PRIVATE | MAP_FIXED, descriptor, 0))


def move(at: int, size: int, to: int) -> None:
    """Move a map, with its page tables, to the place of another one, which it replaces."""
    _checked(_library().mremap(at, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to))


def move_away(at: int, size: int) -> int:
    """Move a map, with its page tables; return the new address. The old place stays mapped, without page tables.

    Otherwise another thread could map something there, before this one does.
    """
    return _checked(_library().mremap(at, size, size, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, None))


def unmap(at: int, size: int) -> None:
    _checked(_library().munmap(at, size))


def advise(at: int, size: int, advice: int) -> None:
    _checked(_library().madvise(at, size, advice))


def copy(at: int, data: memoryview) -> None:
    """Write bytes to an address."""
    import ctypes

    target: Any = memoryview((ctypes.c_char * len(data)).from_address(at)).cast("B")
    numpy: Any = sys.modules.get("numpy")
    if hasattr(numpy, "copyto"):  # it copies without the GIL
        numpy.copyto(numpy.frombuffer(target, "u1"), numpy.frombuffer(data, "u1"))
    else:
        target[:] = data


def clear(at: int, size: int) -> None:
    """Write zeros to an address."""
    import ctypes

    ctypes.memset(at, 0, size)


def address_of(memory: mmap.mmap) -> int:
    """Where a map of Python's is."""
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(memory))

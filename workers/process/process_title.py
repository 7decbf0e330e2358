"""What `ps` and `/proc` show of a forked process, written anew in place.

A forked worker inherits its template's command line and environment as the kernel shows them. Both lie in the
process's own memory, so a template is started with its id padded to WIDTH at one place in each, and every worker
writes its own id over it. Processes are found by these (see the broker's keeper), so they must be true.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

WIDTH = 80  # characters: a worker's id has at most 66
VARIABLE = "SNAKEPIT_WORKER"
# Fields of /proc/self/stat behind the process's name: where its arguments and its environment begin and end.
ARGUMENTS, ENVIRONMENT = slice(45, 47), slice(47, 49)


def blank(name: str) -> str:
    """A name with room for any other.

    >>> len(blank("digits-0a1b-t1")), blank("digits-0a1b-t1").strip()
    (80, 'digits-0a1b-t1')
    """
    return name.ljust(WIDTH)


def write(old: str, new: str) -> None:
    """Replace the blank of `old` by `new`; where the kernel does not say where it lies, nothing happens."""
    os.environ[VARIABLE] = new  # for what this process starts; the kernel shows the memory below
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        for place in (ARGUMENTS, ENVIRONMENT):
            start, end = map(int, fields[place])
            _overwrite(start, end, blank(old).encode(), new.encode())
    except (OSError, ValueError, TypeError):
        return


def _overwrite(start: int, end: int, old: bytes, new: bytes) -> None:
    block = ctypes.string_at(start, end - start)
    at = block.find(old + b"\0")
    if at >= 0 and len(new) <= len(old):
        ctypes.memmove(start + at, new.ljust(len(old), b"\0"), len(old))

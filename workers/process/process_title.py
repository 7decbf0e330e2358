"""The process title: what `ps` and `/proc` show of a forked process, overwritten in place.

The kernel shows a forked worker with its template's command line and environment. Both are in the process's own
memory. A template is therefore started with its id padded to WIDTH at one place in each, and every worker writes its
own id over it. Processes are found by these (see the broker's reaper), so they must be true.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

WIDTH = 80  # characters: a worker's id has at most 66
VARIABLE = "SNAKEPIT_WORKER"
# Fields of /proc/self/stat behind the process's name: where its arguments and its environment begin and end.
ARGUMENTS, ENVIRONMENT = slice(45, 47), slice(47, 49)


def padded(name: str) -> str:
    """Pad a name so that any other fits over it.

    >>> len(padded("digits-0a1b-t1")), padded("digits-0a1b-t1").strip()
    (80, 'digits-0a1b-t1')
    """
    return name.ljust(WIDTH)


def rewrite(old: str, new: str) -> None:
    """Replace the padded `old` by `new`. Does nothing where the kernel does not give the addresses."""
    os.environ[VARIABLE] = new  # for processes that this one starts; the kernel shows the memory below
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        for place in (ARGUMENTS, ENVIRONMENT):
            start, end = map(int, fields[place])
            _overwrite(start, end, padded(old).encode(), new.encode())
    except (OSError, ValueError, TypeError):
        return


def _overwrite(start: int, end: int, old: bytes, new: bytes) -> None:
    block = ctypes.string_at(start, end - start)
    at = block.find(old + b"\0")
    if at >= 0 and len(new) <= len(old):
        ctypes.memmove(start + at, new.ljust(len(old), b"\0"), len(old))

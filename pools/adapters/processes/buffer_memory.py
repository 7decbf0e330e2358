"""Memory of large arguments that a worker holds and PSS does not count.

PSS counts pages that a process has mapped and touched. An argument in a memory file may be neither: its call is
prefetched, or the command has not read it yet. Its memory is used all the same.
"""

from __future__ import annotations

import contextlib
import os
import re

NAME = "/memfd:snakepit buffer"
_MAP = re.compile(
    rb"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ (?P<inode>\d+) +/memfd:snakepit buffer.*\n"
    rb"Size: +(?P<size>\d+) kB\n(?:.*\n){0,3}?Rss: +(?P<rss>\d+) kB$",
    re.MULTILINE,
)


def unseen_kb(pid: int) -> int:
    """KiB of memory files of a process that its PSS does not have; 0 if it holds none, or has ended."""
    files = _open_files(pid)
    maps = _mapped(pid)
    unmapped = sum(size for inode, size in files.items() if inode not in maps)
    return unmapped + sum(max(0, size - rss) for size, rss in maps.values())


def _open_files(pid: int) -> dict[int, int]:
    """KiB of each memory file by its inode: of a file, what has been written."""
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                path = f"/proc/{pid}/fd/{name}"
                if os.readlink(path).startswith(NAME):
                    about = os.stat(path)
                    found[about.st_ino] = about.st_blocks // 2  # blocks of 512 bytes
    return found


def _mapped(pid: int) -> dict[int, tuple[int, int]]:
    """Size and resident part of each map of a memory file, in KiB, by inode. Several maps of one: the fullest."""
    found: dict[int, tuple[int, int]] = {}
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/smaps", "rb") as file:
            text = file.read()
        for one in _MAP.finditer(text):
            inode, size, rss = (int(one[name]) for name in ("inode", "size", "rss"))
            found[inode] = max(found.get(inode, (size, rss)), (size, rss), key=lambda known: known[1])
    return found

"""What a process holds: descriptors, threads, children, zombies and memory, from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.usage import children

EXECUTOR = min(32, (os.cpu_count() or 1) + 4)  # threads that asyncio.to_thread keeps at most
BUFFER = "memfd:snakepit buffer"
SETTLE = 30.0  # seconds for descriptors and children to go after the last call


@dataclass(frozen=True, slots=True)
class Census:
    descriptors: int
    threads: int
    children: int
    zombies: int
    rss_mb: float

    def more_than(self, before: Census) -> list[str]:
        """What there is more of, memory apart. An executor keeps its threads, up to its bound."""
        names = ("descriptors", "threads", "children", "zombies")
        pairs = [(name, getattr(before, name), getattr(self, name)) for name in names]
        return [f"{name} {was} to {now}" for name, was, now in pairs if now > was + EXECUTOR * (name == "threads")]


def census(pid: int) -> Census:
    status = Path(f"/proc/{pid}/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    begotten = children(pid, deep=False)
    return Census(
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        threads=int(values["Threads"]),
        children=len(begotten),
        zombies=sum(map(is_zombie, begotten)),
        rss_mb=int(values["RssAnon"].split()[0]) / 1024,  # without pages of files, which the kernel drops at will
    )


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def memory_files(pid: int) -> int:
    """How many memory files of buffers a process holds, by a descriptor or by a map. 0: it has ended."""
    found = 0
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                found += BUFFER in os.readlink(f"/proc/{pid}/fd/{name}")
        return found + Path(f"/proc/{pid}/maps").read_text().count(BUFFER)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def settled(pid: int, before: Census) -> list[str]:
    """What a process still has more of than before, after a time in which it may let go."""
    return (until(lambda: not census(pid).more_than(before), SETTLE) and []) or census(pid).more_than(before)


def until(question: Callable[[], object], seconds: float) -> bool:
    """Ask again and again; return whether it became true in time."""
    end = time.monotonic() + seconds
    while not question():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True

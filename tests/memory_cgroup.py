"""A real memory cgroup for tests, of either version. `Missing` means that this machine lets no test make one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")


class Missing(Exception):
    """No memory cgroup can be made here. The message has the reason."""


class MemoryCgroup:
    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, pid: int) -> None:
        (self._path / "cgroup.procs").write_text(str(pid))


@contextmanager
def memory_cgroup(megabytes: int) -> Iterator[MemoryCgroup]:
    """An empty group with this limit; it must be empty again at the end."""
    v1 = MOUNT / "memory"
    parent, limit = (v1, "memory.limit_in_bytes") if v1.is_dir() else (MOUNT, "memory.max")
    path = parent / f"snakepit-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        raise Missing(f"no memory cgroup can be made in {parent}: {error}") from error
    try:
        try:
            (path / limit).write_text(str(megabytes * 2**20))
        except OSError as error:
            raise Missing(f"{path} has no memory limit: {error}") from error
        yield MemoryCgroup(path)
    finally:
        path.rmdir()

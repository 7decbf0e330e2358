"""Whether the kernel killed a process because its memory cgroup reached its limit.

    each sample ─▶ the group's count of such kills; a new one is kept with its time
    SIGKILL   ─▶ a kill of the last seconds that explains no other death: the kernel did it

The exit status shows only SIGKILL, as for a kill from outside. The processes of a group share one count, so each kill
explains one death.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from snakepit.pools.cgroups import group_lines, memory_group, oom_kills

RECENT = 10.0  # seconds: an older kill ended another process, such as a child of the worker


class _Counted:
    """The kills of one group that explain no death yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = oom_kills(path)
        self._kills: list[float] = []  # when each was first seen
        self._lock = threading.Lock()  # memory is read in threads

    def sample(self, now: float) -> None:
        with self._lock:
            count = oom_kills(self._path)
            self._kills = [at for at in self._kills if at > now - RECENT] + [now] * max(0, count - self._count)
            self._count = count

    def take(self) -> bool:
        """Use up one kill."""
        with self._lock:
            if not self._kills:
                return False
            self._kills.pop(0)
            return True


class MemoryGroup:
    """The memory cgroup of one process. All processes of a group share what is counted."""

    _counted: dict[Path, _Counted] = {}

    def __init__(self, pid: int, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        self._pid = pid
        self._root = root
        self._clock = clock
        self._lines = ""
        self._group: _Counted | None = None
        self.sample()

    def sample(self) -> None:
        """Note the present group, because the process may have moved, and the group's new kills.

        Call it also between the end of the process and its reaping.
        """
        lines = group_lines(self._pid, self._root)
        if lines and lines != self._lines:
            self._lines = lines
            found = memory_group(self._pid, self._root)
            # Cgroup v1 shows the root for a process that has ended: then the last known group counts.
            if found is not None and (self._group is None or found[1] != "/"):
                self._group = self._counted.setdefault(found[0], _Counted(found[0]))
        if self._group is not None:
            self._group.sample(self._clock())

    def explains_kill(self) -> bool:
        """Whether the group's limit explains a SIGKILL that the process died of."""
        return self._group is not None and self._group.take()

"""Reads what the control groups of a process allow and use (Linux, cgroup v1 and v2), and the cores that it may use.

    /proc/PID/cgroup ─▶ the process's group, and the groups above it ─▶ the limit with the least room left

In a container its own group is the root. Without a cgroup namespace the path is that of the host and does not exist
in the container; then the root is read.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

UNLIMITED = 2**60  # v1 writes a number of about 2^63 where there is no limit


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLimits:
    """Of the groups of one process. None: no limit."""

    cores: float | None = None  # the CPU quota
    throttled: float = 0.0  # share of the quota's periods in which the kernel stopped the group
    memory: int | None = None  # bytes
    memory_used: int = 0  # bytes, without the file cache that the kernel drops first; the kubelet counts the same way
    oom_kills: int = 0
    processes: int | None = None
    processes_now: int = 0


@dataclass(frozen=True, slots=True)
class _Names:
    """The files of one cgroup version."""

    memory: str
    memory_used: str
    cache: str  # the line of memory.stat with the file cache that the kernel drops first
    cache_in_use: str  # the line with that which was read more than once, and is dropped last
    events: str


V1 = _Names(
    "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file", "memory.oom_control"
)
V2 = _Names("memory.max", "memory.current", "inactive_file", "active_file", "memory.events")


def read_limits(pid: int = 0, root: Path = Path("/")) -> CgroupLimits:
    """The limits of a process; 0: of this one. Everything is unlimited where there are no control groups."""
    names, cpu, memory, processes = (
        V1,
        _groups(root, pid, "cpu"),
        _groups(root, pid, "memory"),
        _groups(root, pid, "pids"),
    )
    if not (cpu or memory or processes):
        names = V2
        cpu = memory = processes = _groups(root, pid, "")
    table = _table(cpu, "cpu.stat")
    periods = table.get("nr_periods", 0)
    allowed, used = _tightest_memory(memory, names, (names.cache,))
    tasks, tasks_now = _tightest(processes, "pids.max", lambda group: _number(group / "pids.current") or 0)
    return CgroupLimits(
        cores=min((cores for group in cpu if (cores := _quota(group)) is not None), default=None),
        throttled=table.get("nr_throttled", 0) / periods if periods else 0.0,
        memory=allowed,
        memory_used=used,
        oom_kills=_table(memory, names.events).get("oom_kill", 0),
        processes=tasks,
        processes_now=tasks_now,
    )


def memory_limit(root: Path = Path("/")) -> tuple[int | None, int]:
    """The memory that this process's groups allow (None: no limit) and use beside files that are cached, in bytes.

    The kernel drops all cached files before it ends a process. Those of large models alone may reach the limit.
    """
    groups, names = _groups(root, 0, "memory"), V1
    if not groups:
        groups, names = _groups(root, 0, ""), V2
    return _tightest_memory(groups, names, (names.cache, names.cache_in_use))


def group_lines(pid: int, root: Path = Path("/")) -> str:
    """The groups of a process, as the kernel lists them; empty if it is gone."""
    return _read(root / "proc" / str(pid) / "cgroup")


def memory_group(pid: int, root: Path = Path("/")) -> tuple[Path, str] | None:
    """The directory of a process's memory group, and the group's name in its hierarchy; None if there is none."""
    lines = [line.split(":", 2) for line in group_lines(pid, root).splitlines()]
    for controller in ("memory", ""):
        groups = _groups(root, pid, controller)
        name = next((path for _, controllers, path in lines if controller in controllers.split(",")), "")
        if groups and name:
            return groups[0], name
    return None


def oom_kills(group: Path) -> int:
    """How many processes of this group the kernel has killed because a memory limit was reached."""
    found = (_table([group], names.events).get("oom_kill") for names in (V2, V1))
    return next((count for count in found if count is not None), 0)


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: its CPU affinity, and the CPU quota of its groups, rounded up."""
    # From Python 3.13 on, process_cpu_count also follows PYTHON_CPU_COUNT.
    count = getattr(os, "process_cpu_count", None)
    if count is not None:
        cores = count() or 1
    elif hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = read_limits(root=root).cores
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _groups(root: Path, pid: int, controller: str) -> list[Path]:
    """The process's own group and those above it; `controller` is empty for cgroup v2."""
    text = _read(root / "proc" / (str(pid) if pid else "self") / "cgroup")
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controller
        # v1: two controllers may be mounted together, under the name of the pair alone.
        if controller and not mount.is_dir():
            mount = mount.with_name(controllers)
        # A hybrid system mounts v2 as well, in another place and without controllers.
        if not mount.is_dir() or (not controller and not (mount / "cgroup.controllers").exists()):
            return []
        return list(_upwards(mount, path))
    return []


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    group = mount / path.lstrip("/")
    while group != mount and mount in group.parents:
        if group.is_dir():
            yield group
        group = group.parent
    yield mount


def _quota(group: Path) -> float | None:
    words = _read(group / "cpu.max").split() or [
        _read(group / "cpu.cfs_quota_us").strip(), _read(group / "cpu.cfs_period_us").strip(),
    ]  # fmt: skip
    # "max" in v2 and -1 in v1: no quota.
    return int(words[0]) / int(words[1]) if len(words) == 2 and all(word.isdigit() for word in words) else None


def _tightest(groups: list[Path], limit: str, used: Callable[[Path], int]) -> tuple[int | None, int]:
    """Limit and use of the group with the least room; without a limit, the use of the process's own group."""
    pairs = [(allowed, used(group)) for group in groups if (allowed := _number(group / limit)) is not None]
    if pairs:
        return min(pairs, key=lambda pair: pair[0] - pair[1])
    return None, used(groups[0]) if groups else 0


def _tightest_memory(groups: list[Path], names: _Names, dropped: Sequence[str]) -> tuple[int | None, int]:
    """`dropped`: lines of memory.stat that do not count as used."""
    return _tightest(groups, names.memory, lambda group: _memory_used(group, names, dropped))


def _memory_used(group: Path, names: _Names, dropped: Sequence[str]) -> int:
    stat = _table([group], "memory.stat")
    return max(0, (_number(group / names.memory_used) or 0) - sum(stat.get(line, 0) for line in dropped))


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() and int(text) < UNLIMITED else None


def _table(groups: list[Path], name: str) -> dict[str, int]:
    pairs = (line.split() for line in _read(groups[0] / name).splitlines()) if groups else ()
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _read(path: Path) -> str:
    """A file of the kernel. The root group has no limits and so no such file; a process may have ended."""
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""

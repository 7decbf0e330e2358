"""Reads facts of this machine: files, limits, cgroup v2, processes. Everything is read, nothing is touched."""

from __future__ import annotations

import contextlib
import math
import os
import re
import resource
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from loky import cpu_count

from snakepit.pools.adapters.processes import reaper
from snakepit.pools.adapters.runtime_directory import LONGEST_NAME
from snakepit.pools.diagnostics.advice import Capacity
from snakepit.pools.diagnostics.facts import Entry, Machine, Room, Runtime

LISTENING = "0A"  # the kernel's state of a TCP socket in /proc/net/tcp


def runtime(directory: Path, more: Iterable[Path] = ()) -> Runtime:
    """The broker's directory, and the room on its file system and on those of `more`."""
    rooms: dict[int, Room] = {}
    for path in (directory, *more):
        found = _nearest(path)
        rooms.setdefault(os.stat(found).st_dev, _room(found))
    return Runtime(
        user=os.geteuid(),
        directory=_entry(directory),
        socket=_entry(directory / "broker.sock"),
        token=_entry(directory / "token"),
        longest_socket=len(os.fsencode(directory / LONGEST_NAME)),
        rooms=tuple(rooms.values()),
    )


def _entry(path: Path) -> Entry:
    try:
        found = os.lstat(path)
    except OSError:
        return Entry(path=str(path))
    kinds = {stat.S_IFDIR: "directory", stat.S_IFSOCK: "socket", stat.S_IFREG: "file"}
    kind = kinds.get(stat.S_IFMT(found.st_mode), "other")
    return Entry(path=str(path), mode=stat.S_IMODE(found.st_mode), owner=found.st_uid, kind=kind)


def _nearest(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _room(path: Path) -> Room:
    found = os.statvfs(path)
    return Room(
        path=str(path),
        free=found.f_bavail * found.f_frsize,
        total=found.f_blocks * found.f_frsize,
        inodes_free=found.f_favail,
        inodes_total=found.f_files,
    )


def machine(broker_pid: int, port: int) -> Machine:
    """Limits of the broker's process where it runs here and may be read, else of this one."""
    pid = broker_pid if broker_pid and os.access(f"/proc/{broker_pid}/limits", os.R_OK) else 0
    files, processes = _limits(pid)
    memory = _meminfo()
    group = _cgroup(pid or os.getpid())
    used, limit = _number(group, "memory.current"), _number(group, "memory.max")
    quota = _words(group, "cpu.max")
    throttled = _table(group, "cpu.stat")
    periods = throttled.get("nr_periods", 0)
    return Machine(
        of="the broker" if pid else "this process",
        cores=int(cpu_count()),
        open_files=files,
        processes=processes,
        processes_now=_processes_of(os.geteuid()),
        memory_total_mb=memory.get("MemTotal", 0) / 1024,
        memory_available_mb=memory.get("MemAvailable", 0) / 1024,
        cgroup_memory_mb=None if limit is None else limit / 2**20,
        cgroup_memory_used_mb=(used or 0) / 2**20,
        cgroup_oom_kills=_table(group, "memory.events").get("oom_kill", 0),
        cgroup_processes=_number(group, "pids.max"),
        cgroup_processes_now=_number(group, "pids.current") or 0,
        cgroup_cores=int(quota[0]) / int(quota[1]) if len(quota) == 2 and quota[0] != "max" else None,
        cgroup_throttled=throttled.get("nr_throttled", 0) / periods if periods else 0.0,
        orphans=orphans(),
        port=port,
        port_taken=port in set(_listening()),
    )


def room_here(address: str, pid: int) -> Capacity:
    """Cores and free memory for a broker on this machine; nothing is known of one that is reached over TCP."""
    if not pid or not (address.startswith(("/", "unix:")) and Path(f"/proc/{pid}").exists()):
        return Capacity()
    group, free = _cgroup(pid), _meminfo().get("MemAvailable", 0) / 1024
    used, limit = _number(group, "memory.current"), _number(group, "memory.max")
    if limit is not None:
        free = min(free, (limit - (used or 0)) / 2**20)
    quota = _words(group, "cpu.max")
    granted = int(quota[0]) / int(quota[1]) if len(quota) == 2 and quota[0] != "max" else math.inf
    with contextlib.suppress(OSError):
        return Capacity(min(float(len(os.sched_getaffinity(pid))), granted), max(0.0, free))
    return Capacity(None, max(0.0, free))


def _limits(pid: int) -> tuple[int | None, int | None]:
    """Open files and processes, of a process or (0) of this one; None: no limit."""
    if pid:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/limits").read_text()
            return _soft(text, "Max open files"), _soft(text, "Max processes")
    pair = (resource.RLIMIT_NOFILE, getattr(resource, "RLIMIT_NPROC", None))
    soft = [resource.getrlimit(one)[0] if one is not None else resource.RLIM_INFINITY for one in pair]
    files, processes = (None if one == resource.RLIM_INFINITY else one for one in soft)
    return files, processes


def _soft(text: str, name: str) -> int | None:
    match = re.search(rf"^{name}\s+(\d+|unlimited)", text, re.MULTILINE)
    return None if match is None or match[1] == "unlimited" else int(match[1])


def _meminfo() -> dict[str, int]:
    with contextlib.suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return {}


def _cgroup(pid: int) -> Path | None:
    """The directory of a process's cgroup (v2), as it is seen from in here."""
    with contextlib.suppress(OSError):
        match = re.search(r"^0::(/.*)$", Path(f"/proc/{pid}/cgroup").read_text(), re.MULTILINE)
        if match:
            found = Path("/sys/fs/cgroup") / match[1].lstrip("/")
            return found if found.is_dir() else None
    return None


def _text(group: Path | None, name: str) -> str:
    """A file of the cgroup. Its root has no limits and so no such file."""
    if group is None:
        return ""
    with contextlib.suppress(OSError):
        return (group / name).read_text().strip()
    return ""


def _number(group: Path | None, name: str) -> int | None:
    text = _text(group, name)
    return int(text) if text.isdigit() else None


def _words(group: Path | None, name: str) -> list[str]:
    return _text(group, name).split()


def _table(group: Path | None, name: str) -> dict[str, int]:
    pairs = (line.split() for line in _text(group, name).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _processes_of(user: int) -> int:
    """Threads of this user: the kernel's limit counts them."""
    count = 0
    for entry in _pids():
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{entry}").st_uid == user:
                count += len(os.listdir(f"/proc/{entry}/task"))
    return count


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def orphans() -> tuple[int, ...]:
    """Workers whose broker is gone: they carry the token of one for which no keeper stands watch."""
    watched, carriers = set(), {}
    for pid in _pids():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(word.endswith(b"/keeper.py") for word in words):
                watched |= set(words)
                continue
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            token = next((one for one in variables if one.startswith(reaper.VARIABLE)), b"")
            if token and any(one.startswith(b"SNAKEPIT_WORKER=") for one in variables):
                carriers[pid] = token.removeprefix(reaper.VARIABLE)
    return tuple(sorted(pid for pid, token in carriers.items() if token not in watched))


def _listening() -> Iterator[int]:
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(name).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == LISTENING:
                    yield int(words[1].rpartition(":")[2], 16)

"""Reads facts of this machine: files, limits, control groups, processes. It changes nothing."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import socket
import stat
from collections.abc import Iterable
from pathlib import Path

import psutil
from django.core.exceptions import ImproperlyConfigured

from snakepit.pools import conf
from snakepit.pools.adapters.processes import reaper
from snakepit.pools.adapters.runtime_directory import LONGEST_NAME
from snakepit.pools.cgroups import read_limits, usable_cores
from snakepit.pools.diagnostics.advice import Capacity
from snakepit.pools.diagnostics.facts import DiskFacts, FastPathFacts, FileFacts, MachineFacts, RuntimeFacts
from snakepit.workers.transport import FAST_PATH, is_on
from snakepit.workers.transport.fast_path_check import fast_path_problem
from snakepit.workers.transport.grpclib_internals import versions

SETTINGS = "DJANGO_SETTINGS_MODULE"
TOKEN = reaper.VARIABLE.decode().rstrip("=")
Limits = tuple[int | None, int | None]  # open files and processes; None: no limit


def runtime(directory: Path, more: Iterable[Path] = ()) -> RuntimeFacts:
    """The broker's directory, and the room on its file system and on those of `more`."""
    return RuntimeFacts(
        user=os.geteuid(),
        directory=_entry(directory),
        socket=_entry(directory / "broker.sock"),
        token=_entry(directory / "token"),
        longest_socket=len(os.fsencode(directory / LONGEST_NAME)),
        rooms=rooms(directory, *more),
    )


def rooms(*paths: Path) -> tuple[DiskFacts, ...]:
    """The room on the file systems of these paths, each once."""
    found: dict[int, DiskFacts] = {}
    for path in map(_nearest, paths):
        found.setdefault(os.stat(path).st_dev, _room(path))
    return tuple(found.values())


def _entry(path: Path) -> FileFacts:
    try:
        found = os.lstat(path)
    except OSError:
        return FileFacts(path=str(path))
    kinds = {stat.S_IFDIR: "directory", stat.S_IFSOCK: "socket", stat.S_IFREG: "file"}
    kind = kinds.get(stat.S_IFMT(found.st_mode), "other")
    return FileFacts(path=str(path), mode=stat.S_IMODE(found.st_mode), owner=found.st_uid, kind=kind)


def _nearest(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _room(path: Path) -> DiskFacts:
    found = os.statvfs(path)
    return DiskFacts(
        path=str(path),
        free=found.f_bavail * found.f_frsize,
        total=found.f_blocks * found.f_frsize,
        inodes_free=found.f_favail,
        inodes_total=found.f_files,
    )


def fast_path() -> FastPathFacts:
    """Run the self-check in this process, which has the packages of the broker and of the clients here."""
    return FastPathFacts(versions=versions(), switched_on=is_on(FAST_PATH), problem=fast_path_problem())


def machine(broker_pid: int) -> MachineFacts:
    """Limits of the broker's process where it runs here and its limits can be read, else of this one."""
    theirs = _limits_of(broker_pid) if broker_pid else None
    files, processes = theirs or _own_limits()
    memory = psutil.virtual_memory()
    group = read_limits(broker_pid if theirs else 0)
    return MachineFacts(
        of="the broker" if theirs else "this process",
        cores=usable_cores(),
        open_files=files,
        processes=processes,
        processes_now=_threads_of(os.geteuid()),
        memory_total_mb=memory.total / 2**20,
        memory_available_mb=memory.available / 2**20,
        cgroup_memory_mb=None if group.memory is None else group.memory / 2**20,
        cgroup_memory_used_mb=group.memory_used / 2**20,
        cgroup_oom_kills=group.oom_kills,
        cgroup_processes=group.processes,
        cgroup_processes_now=group.processes_now,
        cgroup_cores=group.cores,
        cgroup_throttled=group.throttled,
        orphans=orphans(),
        greenlets=greenlet_processes(),
    )


def room_here(address: str, pid: int) -> Capacity:
    """Cores and free memory for a broker on this machine; unknown for a broker that is reached over TCP."""
    if not pid or not (address.startswith(("/", "unix:")) and psutil.pid_exists(pid)):
        return Capacity()
    group, free = read_limits(pid), float(psutil.virtual_memory().available)
    if group.memory is not None:
        free = min(free, group.memory - group.memory_used)
    free_mb = max(0.0, free / 2**20)
    try:
        cores = len(os.sched_getaffinity(pid)) if hasattr(os, "sched_getaffinity") else usable_cores()
    except OSError:  # the broker ended
        return Capacity(None, free_mb)
    return Capacity(min(float(cores), math.inf if group.cores is None else group.cores), free_mb)


def _limits_of(pid: int) -> Limits | None:
    """Open files and processes of another process; None: they cannot be read (its end, its owner, the system)."""
    if not hasattr(psutil, "RLIMIT_NPROC"):
        return None
    try:
        process = psutil.Process(pid)
        return _finite(process.rlimit(psutil.RLIMIT_NOFILE)[0]), _finite(process.rlimit(psutil.RLIMIT_NPROC)[0])
    except psutil.Error:
        return None


def _own_limits() -> Limits:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _finite(files), _finite(resource.getrlimit(resource.RLIMIT_NPROC)[0])


def _finite(limit: int) -> int | None:
    return None if limit == resource.RLIM_INFINITY else limit


def _threads_of(user: int) -> int:
    """Threads of this user, which the kernel's limit counts."""
    count = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().effective == user:
                count += process.num_threads()
    return count


def orphans() -> tuple[int, ...]:
    """Workers whose broker is gone: they carry the token of a broker that has no reaper."""
    found = _without_reaper()
    # A second reading: a reaper that was just started has no command line for a moment.
    return tuple(sorted(found & _without_reaper())) if found else ()


def _without_reaper() -> set[int]:
    script = f"/{Path(reaper.__file__).name}"
    watched: set[str] = set()
    carriers: dict[int, str] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if any(word.endswith(script) for word in words):
                watched |= set(words)
                continue
            variables = process.environ()
            if "SNAKEPIT_WORKER" in variables and (token := variables.get(TOKEN)):
                carriers[process.pid] = token
    return {pid for pid, token in carriers.items() if token not in watched}


def greenlet_processes() -> tuple[tuple[int, str, str], ...]:
    """Web servers and Celery workers of this user and project that have loaded gevent or eventlet; Linux only."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.uids().effective != os.geteuid() or not _is_of_this_project(process):
                continue
            words = process.cmdline()
            if library := _greenlets_of(process.pid, words):
                found.append((process.pid, library, " ".join(words)))
    return tuple(found)


def _is_of_this_project(process: psutil.Process) -> bool:
    """A process of the same settings or, where it sets them by itself, of the same directory."""
    ours, theirs = os.environ.get(SETTINGS), process.environ().get(SETTINGS)
    return ours == theirs if ours and theirs else process.cwd() == os.getcwd()


def _greenlets_of(pid: int, words: Iterable[str]) -> str:
    """Which of the two a process has loaded, by its extension modules; those of eventlet are greenlet's alone."""
    maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
    if "/gevent/" in maps:
        return "gevent"
    return "eventlet" if "/greenlet/" in maps and any("eventlet" in word for word in words) else ""


def node_name() -> str:
    """The name of this host's node; of the host, if the settings are wrong."""
    try:
        return conf.node_name()
    except ImproperlyConfigured:
        return socket.gethostname()

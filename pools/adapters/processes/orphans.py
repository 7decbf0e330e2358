"""Processes that lost their parent: those of a broker that was killed, and those that outlived their worker."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from snakepit.pools.adapters.processes import reaper
from snakepit.pools.adapters.runtime_directory import RuntimeDirectory, machine_boot

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Whoever loses its parent below this process becomes its child, also after setsid (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_predecessors(runtime: RuntimeDirectory) -> int:
    """Kill what the directory's last broker left. Its lock is ours, so it is dead; only its token is looked for."""
    before = runtime.predecessor
    if before is None or before.machine_boot != machine_boot() or not os.path.isdir("/proc"):
        return 0
    return reaper.kill_carriers(before.instance)


class ReaperProcess:
    """The keeper's process, started with the broker and ended by the broker's own end."""

    def __init__(self, runtime: RuntimeDirectory) -> None:
        self._runtime = runtime
        self._read, self._write = os.pipe()
        self._child = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        script, path = str(Path(reaper.__file__)), str(self._runtime.path)
        return subprocess.Popen(
            [sys.executable, "-I", script, str(self._read), self._runtime.instance, path],
            stdin=subprocess.DEVNULL,
            pass_fds=(self._read,),
            start_new_session=True,
            env={"PATH": os.environ.get("PATH", "")},
        )

    @property
    def pid(self) -> int:
        return self._child.pid

    def ensure(self) -> None:
        """Start it again if somebody ended it."""
        if self._child.poll() is not None:
            self._child = self._start()

    def close(self) -> None:
        """An orderly end: it finds nobody, and leaves. Safe to call twice."""
        if self._write < 0:
            return
        os.close(self._write)
        os.close(self._read)
        self._write = self._read = -1
        try:
            self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class Orphans:
    """Children that came to this process because their worker is gone."""

    def __init__(self, instance: str, own: Callable[[], Iterable[int]], workers: Callable[[], Iterable[str]]) -> None:
        self._mark = reaper.VARIABLE + instance.encode()
        self._own = own  # the processes that somebody here watches
        self._workers = workers  # the ids of the workers that live

    def end(self) -> int:
        """Reap the dead ones, kill those whose worker is gone. Returns how many were killed."""
        killed = 0
        for pid in set(children()) - set(self._own()):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    continue
            worker = self._worker_of(pid)
            if worker and worker not in self._workers():
                # Its number cannot pass on before we reap it: it is our own child.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
        return killed

    def _worker_of(self, pid: int) -> str:
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return ""
        if self._mark not in variables:
            return ""
        prefix = b"SNAKEPIT_WORKER="
        # A template's is padded: its workers write theirs over it.
        return next((line[len(prefix) :].decode().strip() for line in variables if line.startswith(prefix)), "")


def children() -> list[int]:
    """The direct children of this process, from the kernel's lists (Linux)."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError, ValueError):
                found += [int(pid) for pid in (task / "children").read_text().split()]
    return found

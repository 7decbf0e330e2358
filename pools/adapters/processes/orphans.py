"""Processes that lost their parent: those of a killed broker, and those that outlived their worker.

The broker is a subreaper: a process below it whose parent ends becomes the broker's own child. Such a child is ended
once its worker is gone. Its worker is known from its environment, and if a command emptied that, from its descent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from snakepit.pools.adapters.processes import reaper
from snakepit.pools.adapters.processes.vitals import descendants
from snakepit.pools.adapters.runtime_directory import RuntimeDirectory, start_time

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Adopt every process below this one that loses its parent, also after setsid (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_predecessors(runtime: RuntimeDirectory) -> int:
    """Kill what the directory's last broker left behind, if that broker is gone. Returns how many processes."""
    before = runtime.predecessor
    return reaper.kill_carriers(before.instance) if before is not None and before.is_gone else 0


class ReaperProcess:
    """The process that runs `reaper.py`: it starts with the broker and acts when the broker ends."""

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
        """Start it again if it has ended."""
        if self._child.poll() is not None:
            self._child = self._start()

    def close(self) -> None:
        """Let it end after an orderly stop, when it finds no process. Safe to call twice."""
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


Identity = tuple[int, int]  # a pid and its start time: a pid alone may pass to another process


class Orphans:
    """Children that this process adopted because their parent ended.

    `own` gives the pids of children that other code of the broker watches. `workers` gives the living workers and
    templates, each id with its pid, or 0 while it has none.
    """

    def __init__(
        self, instance: str, own: Callable[[], Iterable[int]], workers: Callable[[], Mapping[str, int]]
    ) -> None:
        self._mark = reaper.VARIABLE + instance.encode()
        self._own = own
        self._workers = workers
        self._before: frozenset[str] = frozenset()  # the workers at the last check
        self._descent: dict[Identity, frozenset[str]] = {}  # the workers that a process may descend from

    def reap(self) -> None:
        """Collect the exit status of those that have ended. Cheap: for every SIGCHLD."""
        for pid in self._adopted():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def end(self) -> int:
        """Reap those that have ended, and kill those whose worker is gone. Returns how many were killed.

        A process that emptied its environment is known by descent, from an earlier check of its worker. One that was
        born since then may descend from any worker of that look, most likely from one that has ended; it ends with the
        last of these. The latter is no evidence where the broker is process 1 of a container, which adopts everything.
        """
        self.reap()
        workers = self._workers()
        seen: dict[Identity, frozenset[str]] = {}
        for name, pid in workers.items():
            for below in descendants(pid)[1:] if pid else ():
                seen[below, start_time(below)] = frozenset((name,))
        killed = 0
        for pid in self._adopted():
            if (named := self._named_worker(pid)) is not None:
                owners = frozenset((named,))
            else:
                key = pid, start_time(pid)
                owners = seen[key] = self._descent.get(key) or (self._before - workers.keys()) or self._before
            if owners and owners.isdisjoint(workers):
                # The pid cannot pass on before it is reaped: this is a child of our own.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
        self._descent, self._before = seen, frozenset(workers if os.getpid() != 1 else ())
        return killed

    def _adopted(self) -> list[int]:
        """Workers lead sessions of their own, so what the broker itself started in its session is not killed."""
        found, session = [], os.getsid(0)
        for pid in set(children()) - set(self._own()):
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) != session:
                    found.append(pid)
        return found

    def _named_worker(self, pid: int) -> str | None:
        """The worker that its environment names; None if it does not carry this broker's token."""
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return None
        if self._mark not in variables:
            return None
        prefix = b"SNAKEPIT_WORKER="
        # Padded in a template, whose workers write theirs over it.
        return next((line[len(prefix) :].decode().strip() for line in variables if line.startswith(prefix)), None)


def children() -> list[int]:
    """The direct children of this process, from the kernel's lists (Linux)."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError, ValueError):
                found += [int(pid) for pid in (task / "children").read_text().split()]
    return found

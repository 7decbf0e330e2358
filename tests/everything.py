"""Adapters that do everything, also everything wrong, that an adapter can do to its pool."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import logging
import mmap
import os
import random
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snakepit.workers import Adapter, Context, command
from snakepit.workers.process import stacks


class Opaque:
    """An object that JSON cannot hold."""


class Everything(Adapter):
    """The behaviour that the acceptance tests need, as commands, for both profiles."""

    thread_safe = True

    def __init__(self, recent: str = "") -> None:
        self.recent = recent
        self.inside = 0
        self.most_inside = 0
        self.barrier = threading.Barrier(2, timeout=120)

    def note(self, text: str) -> None:
        """Append a line to the file `recent`, in one write that survives a kill right after it."""
        if self.recent:
            fd = os.open(self.recent, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(fd, f"{text}\n".encode())
            os.close(fd)

    def enter(self) -> None:
        with self.lock:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1

    @command(idempotent=True)
    def echo(self, value: Any = None) -> Any:
        return value

    @command
    def pid(self) -> int:
        return os.getpid()

    @command
    def once(self, mark: str) -> int:
        """Not idempotent: every run appends a line."""
        self.note(f"once {mark} {os.getpid()}")
        return os.getpid()

    @command
    def meet(self) -> int:
        """Return when two calls are inside at the same time."""
        self.enter()
        try:
            self.barrier.wait()
            return self.most_inside
        finally:
            self.leave()

    @command
    def hold(self, path: str) -> int:
        """Block until a named pipe is opened for writing. Return the highest number of concurrent calls."""
        self.enter()
        try:
            self.note(f"holding {path} {os.getpid()}")
            with open(path, "rb") as pipe:
                pipe.read()
            return self.most_inside
        finally:
            self.leave()

    @command
    def visit(self, mark: str, path: str = "", deaf: bool = False) -> int:
        """Append a line. With a path, wait for that pipe to be opened for writing; `deaf` holds the GIL meanwhile."""
        self.note(f"visit {mark} {os.getpid()}")
        if path:
            with open(path, "rb") as pipe:
                if deaf:
                    ctypes.PyDLL(None).read(pipe.fileno(), ctypes.create_string_buffer(1), 1)
                else:
                    pipe.read()
        return os.getpid()

    @command(idempotent=True)
    def hold_again(self, path: str) -> int:
        """Like `hold`, but idempotent."""
        self.note(f"holding {path} {os.getpid()}")
        with open(path, "rb") as pipe:
            pipe.read()
        return os.getpid()

    @command
    def says_around(self, path: str) -> Iterator[str]:
        """Like `hold`, with one chunk before and one after."""
        yield "before"
        self.note(f"holding {path} {os.getpid()}")
        with open(path, "rb") as pipe:
            pipe.read()
        yield "after"

    @command
    def notes_its_end(self) -> int:
        """Return the process's priority. The priority at exit is appended as a line."""
        atexit.register(lambda: self.note(f"nice {os.getpriority(os.PRIO_PROCESS, 0)}"))
        return os.getpriority(os.PRIO_PROCESS, 0)

    @command
    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    @command
    def burn(self, seconds: float) -> int:
        """CPU-bound; it does not check for cancellation."""
        self.note(f"burning {os.getpid()}")
        end, turns = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            turns += 1
        return turns

    @command
    def entangle(self) -> bool:
        """C code that holds the GIL for a long time: a regular expression with exponential backtracking."""
        self.note(f"entangling {os.getpid()}")
        return re.fullmatch(r"(a+)+b", "a" * 60) is not None

    @command
    def deafens(self) -> None:
        """Handle the signal for stacks itself, so that they cannot be read."""
        signal.signal(stacks.number(), signal.SIG_IGN)

    @command
    def obedient(self, ctx: Context) -> str:
        """Run until it is cancelled."""
        self.note(f"obedient {os.getpid()}")
        while not ctx.wait(5.0):
            pass
        self.note("asked to stop")
        ctx.raise_if_cancelled()
        return "never"

    @command
    def count(self, ctx: Context, to: int, size: int = 0) -> Iterator[Any]:
        try:
            for number in range(to):
                ctx.progress(number / to, f"{number} of {to}")
                self.note(f"made {number}")
                yield number if not size else "x" * size
        finally:
            self.note("closed")

    @command
    def counts_and_raises(self, to: int) -> Iterator[int]:
        yield from range(to)
        raise LookupError("as asked")

    @command(idempotent=True)
    def dies_once(self, path: str) -> str:
        """End the process in the first run."""
        if not Path(path).exists():
            Path(path).touch()
            os._exit(3)
        return "done"

    @command
    def says(self, ctx: Context, text: str) -> str:
        ctx.log(text)
        return text

    @command
    def puts_off(self, seconds: float, ctx: Context) -> None:
        ctx.snooze(seconds)

    @command
    def puts_off_once(self, path: str, ctx: Context) -> str:
        """Put its job off for a second, in the first run."""
        self.note(f"puts off {path}")
        if not Path(path).exists():
            Path(path).touch()
            ctx.snooze(1.0)
        return "done"

    @command
    def raises(self, text: str = "as asked") -> None:
        raise LookupError(text)

    @command
    def exits(self, code: int) -> None:
        sys.exit(code)

    @command
    def leaves(self, code: int) -> None:
        os._exit(code)

    @command
    def crashes(self) -> None:
        ctypes.string_at(0)

    @command
    def prints(self, text: str = "", binary: bool = False, times: int = 1) -> int:
        for _ in range(times):
            if binary:
                os.write(1, bytes(range(256)) + b"\n")
            else:
                print(text)
        return times

    @command
    def returns_opaque(self) -> Any:
        return {"fine": 1, "not": Opaque()}

    @command
    def returns_nan(self) -> Any:
        return [float("nan"), 1.0]

    @command
    def returns_bytes(self, size: int) -> bytes:
        return b"\0" * size

    @command
    def returns_text(self, size: int) -> str:
        return "x" * size

    @command
    def typed(self, count: int, ratio: float = 1.0, names: list[str] | None = None) -> dict[str, Any]:
        return {"count": count, "ratio": ratio, "names": names}

    @command
    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    @command
    def imports(self, name: str, path: str = "") -> bool:
        """Import a module, from a directory if one is given. Return whether the GIL is on afterwards."""
        sys.path[:0] = [path] if path else []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as many libraries do
            importlib.import_module(name)
        return bool(getattr(sys, "_is_gil_enabled", lambda: True)())

    @command
    def exchange(self, mine: int, times: int, seconds: float, interval: float) -> int:
        """Two calls pass a token to each other without releasing the interpreter. Return how often it came here.

        It ends after `times` passes, or after `seconds`. A GIL switches threads once in `interval` seconds, so only
        threads that run in parallel reach a high count.
        """
        if mine == 0:
            sys.setswitchinterval(interval)
            self.token = 0
        self.barrier.wait()
        came, end = 0, time.monotonic() + seconds
        while came < times and time.monotonic() < end:
            if self.token == mine:
                self.token = 1 - mine
                came += 1
        return came

    @command
    def blas(self) -> list[int]:
        """Return how many threads each numeric library uses for one product."""
        import numpy
        import threadpoolctl

        numpy.dot(numpy.ones((8, 8)), numpy.ones((8, 8)))
        return [library["num_threads"] for library in threadpoolctl.threadpool_info()]

    @command
    def begets(self, detached: bool = False, nameless: bool = False) -> int:
        """Start a child that never ends by itself; return its pid. A nameless one has an empty environment."""
        child = subprocess.Popen(
            [sys.executable, "-c", "import signal; signal.pause()"],
            start_new_session=detached,
            env={} if nameless else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        child.returncode = 0
        return child.pid

    @command
    def allocates(self, megabytes: int) -> int:
        """The same work as `leaks`, without the leak: the pages go back to the kernel."""
        _touched(megabytes).close()
        return megabytes

    @command
    def leaks(self, megabytes: int) -> int:
        self.__dict__.setdefault("kept", []).append(_touched(megabytes))
        return megabytes


def _touched(megabytes: int) -> mmap.mmap:
    """Memory from the kernel directly: memory that the C library has freed before is much cheaper to get again."""
    taken = mmap.mmap(-1, megabytes * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, len(taken), mmap.PAGESIZE):
        taken[page] = 1
    return taken


class Unsafe(Everything):
    """Not marked thread-safe."""

    thread_safe = False


class Preloading(Everything):
    """Loads once, in the template, which appends a line to the file `recent`."""

    loaded_by: int = 0

    @classmethod
    def preload(cls, recent: str = "") -> None:
        cls.loaded_by = os.getpid()
        random.seed(1)
        logging.basicConfig(level=logging.INFO, format="logged by %(message)s", force=True)
        ctypes.CDLL(None).puts(b"native code says hello")  # which stays in the C library's buffer
        os.umask(0o077)
        if recent:
            with open(recent, "a") as lines:
                lines.write(f"preload {os.getpid()}\n")

    @command(idempotent=True)
    def origin(self) -> dict[str, Any]:
        """Return which process loaded what this worker shares, and what it has of its own."""
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "loaded_by": self.loaded_by,
            "session": os.getsid(0),
            "group": os.getpgid(0),
            "directory": os.getcwd(),
            "nice": os.nice(0),
            "limits": [list(resource.getrlimit(kind)) for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS)],
            "temporary": tempfile.gettempdir(),
            "random": random.random(),
            "hash": hash("the same in all workers of a template"),
            "threads": len(os.listdir("/proc/self/task")),
            "signals": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "mask": _mask(),
            "descriptors": _descriptors(),
            "environment": sorted(os.environ.keys()),
        }

    @command
    def announce(self) -> None:
        """Print and log the worker's id."""
        print(f"printed by {os.environ['SNAKEPIT_WORKER']}")
        logging.getLogger("announce").info(os.environ["SNAKEPIT_WORKER"])


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _descriptors() -> list[str]:
    """The open descriptors of this process, by kind."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}").partition(":")[0])
    return sorted(found)


class ThreadInPreload(Everything):
    """Its preload leaves a thread behind, which must not be forked."""

    @classmethod
    def preload(cls) -> None:
        cls.over = threading.Event()
        threading.Thread(target=cls.over.wait, name="ticker", daemon=True).start()


class BriefThreadInPreload(Everything):
    @classmethod
    def preload(cls) -> None:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()


class ConnectionInPreload(Everything):
    @classmethod
    def preload(cls) -> None:
        cls.ends = socket.socketpair()


class LoopInPreload(Everything):
    @classmethod
    def preload(cls) -> None:
        cls.poll = select.epoll()


class NumpyInPreload(Everything):
    @classmethod
    def preload(cls) -> None:
        import numpy as np

        np.random.seed(1)
        cls.np = np

    @command(idempotent=True)
    def draw(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "number": float(self.np.random.random())}


class Heavy(Everything):
    """Holds a model of 60 MiB, which forked workers share."""

    model: bytearray

    @classmethod
    def preload(cls) -> None:
        cls.model = bytearray(60 * 2**20)
        for page in range(0, len(cls.model), 4096):
            cls.model[page] = 1

    def setup(self) -> None:
        assert self.model[4096], "preload() ran, in the template or here"


class RaisesInPreload(Everything):
    @classmethod
    def preload(cls) -> None:
        raise RuntimeError("the weights are missing")


class FailsToLoad(Adapter):
    thread_safe = True

    def setup(self) -> None:
        raise RuntimeError("the model file is missing")

    @command
    def ping(self) -> str:
        return "pong"


class FailsOnce(Adapter):
    """Cannot be loaded until a file exists."""

    thread_safe = True

    def __init__(self, path: str) -> None:
        self.path = path

    def setup(self) -> None:
        if not Path(self.path).exists():
            raise RuntimeError(f"{self.path} is not there yet")

    @command
    def ping(self) -> str:
        return "pong"


class SlowToLoad(Adapter):
    """Loads when a named pipe is opened for writing, or never."""

    thread_safe = True

    def __init__(self, path: str) -> None:
        with open(path, "rb") as pipe:
            pipe.read()

    @command
    def ping(self) -> str:
        return "pong"


class Loads(Everything):
    """Loads slowly, like a model."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        time.sleep(seconds)


class NewVersion(Everything):
    """The same adapter, one release later."""

    @command(idempotent=True)
    def version(self) -> int:
        return 2


class Batching(Adapter):
    """Runs calls in batches. A negative number kills the process."""

    thread_safe = True

    @command(idempotent=True, batch=16)
    def double(self, number: list[int]) -> list[int]:
        if min(number) < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return [2 * one for one in number]

    @command(batch=16)
    def hold(self, path: list[str]) -> list[int]:
        """Return, for each call, the size of the batch, once the named pipe of the first is opened for writing."""
        with open(path[0], "rb") as pipe:
            pipe.read()
        return [len(path)] * len(path)

"""Adapters that the worker tests run in real worker processes."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import ctypes
import decimal
import faulthandler
import gc
import importlib
import io
import locale
import logging
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar

from snakepit.workers import Adapter, CallCancelled, Context, command


class Echo(Adapter):
    """Returns its arguments."""

    thread_safe = True

    @command(idempotent=True, timeout=5)
    def echo(self, value: Any) -> Any:
        """Give the value back.

        Whatever JSON holds.
        """
        return value

    @command
    def add(self, a: float, b: float = 0.0) -> float:
        return a + b

    @command
    def weigh(self, data: bytes) -> int:
        return len(data)

    @command
    def reverse(self, data: bytes) -> bytes:
        return data[::-1]

    @command
    def thread(self) -> dict[str, Any]:
        current = threading.current_thread()
        return {"main": current is threading.main_thread(), "name": current.name}

    @command
    async def athread(self) -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name


class Busy(Adapter):
    """Commands that the tests hold and let go, through files in `folder` and barriers in the process."""

    thread_safe = True

    def __init__(self, folder: str = "", parties: int = 2) -> None:
        self.folder = pathlib.Path(folder)
        self.barrier = threading.Barrier(parties)
        self.running = 0
        self.most = 0

    async def setup(self) -> None:
        await asyncio.sleep(0)
        self.mark("setup")

    async def teardown(self) -> None:
        await asyncio.sleep(0)
        self.mark("teardown")

    def mark(self, name: str) -> None:
        if self.folder.name:
            (self.folder / name).touch()

    @command
    def meet(self) -> int:
        """Returns when `parties` calls are in here at once."""
        return self.barrier.wait(60)

    @command
    def count(self) -> int:
        """The most calls that were ever in here at once; leaves when two were, or when asked."""
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            self.barrier.wait(60)
        finally:
            with self.lock:
                self.running -= 1
        return self.most

    @command
    def hold(self, ctx: Context) -> str:
        """Runs until it is cancelled."""
        ctx.log("holding")
        if ctx.wait(3600):
            self.mark("let go")
            ctx.raise_if_cancelled()
        return "not cancelled"

    @command
    def insist(self, ctx: Context) -> str:
        """Returns a result although it was cancelled."""
        ctx.log("holding")
        ctx.wait(3600)
        return "finished"

    @command
    async def ahold(self, ctx: Context) -> str:
        ctx.log("holding")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.mark("cancelled")
            raise
        return "not cancelled"

    @command
    def stream(self, count: int = 10**9) -> Iterator[int]:
        self.mark("opened")
        try:
            yield from range(count)
        finally:
            self.mark("closed")

    @command
    async def astream(self, count: int = 10**9) -> AsyncIterator[int]:
        self.mark("opened")
        try:
            for number in range(count):
                yield number
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            self.mark("closed")

    @command
    def blobs(self, count: int, size: int) -> Iterator[bytes]:
        for _ in range(count):
            yield b"\0" * size

    @command
    def report_progress(self, ctx: Context, steps: int) -> str:
        for step in range(steps):
            ctx.progress((step + 1) / steps, f"step {step + 1}")
            ctx.log(f"line {step + 1}")
        return ctx.call_id

    @command
    def left(self, ctx: Context) -> float:
        return ctx.remaining

    @command
    def spin(self, ctx: Context) -> None:
        """Runs until the process is killed."""
        ctx.log("spinning")
        while True:
            time.sleep(0.01)


class Broken(Adapter):
    """Everything that a command can do wrong."""

    thread_safe = True

    @command
    def fail(self, message: str = "out of paper") -> None:
        raise ValueError(message)

    @command
    def leave(self, code: int = 3) -> None:
        sys.exit(code)

    @command
    def interrupt(self) -> None:
        raise KeyboardInterrupt

    @command
    def hostile(self) -> None:
        class Hostile(Exception):
            def __str__(self) -> str:
                raise SystemExit("no")

        raise Hostile

    @command
    def secretive(self) -> None:
        class Hostile(Exception):
            def __getattribute__(self, name: str) -> Any:
                raise SystemExit("no")

        raise Hostile

    @command
    def nameless(self) -> None:
        class Nameless(type):
            def __getattribute__(cls, name: str) -> Any:
                raise SystemExit("no")

        class Hostile(Exception, metaclass=Nameless):
            args = property(lambda self: sys.exit("no"))  # type: ignore[assignment]

        raise Hostile

    @command
    def deep(self) -> None:
        self.deep()

    @command
    def give_up(self) -> None:
        raise CallCancelled("of its own accord")

    @command
    async def aleave(self) -> None:
        sys.exit(4)

    @command
    async def aleave_in_task(self) -> None:
        async def leave() -> None:
            sys.exit(5)

        await asyncio.create_task(leave())

    @command
    def spill(self) -> str:
        """Prints binary, and a great deal of it."""
        sys.stdout.buffer.write(bytes(range(256)) * 4096)
        sys.stdout.flush()
        print("\ud800 is no text")
        return "spilled"

    @command
    def odd(self) -> Any:
        return {"object": object(), "nan": float("nan"), "bytes": b"\0\1", "set": {2, 1}}

    @command
    def surrogate(self) -> Any:
        return "\ud800"

    @command
    def large(self, size: int) -> str:
        return "x" * size

    @command
    def half(self) -> Iterator[int]:
        yield 1
        raise RuntimeError("in the middle")

    @command
    def segfault(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


class ProcessOnly(Adapter):
    @command
    def nothing(self) -> None: ...


class FailingSetup(Adapter):
    @command
    def nothing(self) -> None: ...

    def setup(self) -> None:
        raise OSError("no GPU here")


class ExitingSetup(Adapter):
    @command
    def nothing(self) -> None: ...

    def setup(self) -> None:
        sys.exit(9)


class Configured(Adapter):
    """Has parameters for the pool's args, some of them in preload."""

    seen: str = ""

    @classmethod
    def preload(cls, *, model: str = "") -> None:
        cls.seen = model

    def __init__(self, model: str, size: int = 1) -> None:
        self.model, self.size = model, size

    @command
    def look(self) -> list[Any]:
        return [self.seen, self.model, self.size]


class Shared(Adapter):
    """Loads something in `preload`, and returns the pid that loaded it."""

    loaded_by = 0

    @classmethod
    def preload(cls, tree: str = "") -> None:
        cls.loaded_by = os.getpid()
        cls.tree = tree
        random.seed(1)
        uuid._last_timestamp = 2**62

    @command
    def look(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "loaded_by": self.loaded_by,
            "tree": self.tree,
            "random": random.random(),
            "scratch": tempfile.gettempdir(),
            "last_id": uuid._last_timestamp,
            "frozen": gc.get_freeze_count() > 1000,
        }


class Imports(Adapter):
    preload = True

    @command
    def look(self) -> int:
        return os.getpid()


class Ticking(Shared):
    """Its preload leaves a thread behind."""

    @classmethod
    def preload(cls) -> None:
        over = threading.Event()
        threading.Thread(target=over.wait, name="ticker", daemon=True).start()


class Native(Shared):
    """Its preload leaves a native thread behind."""

    @classmethod
    def preload(cls) -> None:
        libc = ctypes.CDLL(None)
        thread = ctypes.c_void_p()
        libc.pthread_create(ctypes.byref(thread), None, ctypes.cast(libc.pause, ctypes.c_void_p), None)


class Spoilt(Shared):
    @classmethod
    def preload(cls) -> None:
        raise SystemExit("no weights")


class Misplaced(Shared):
    def preload(self) -> None:  # no classmethod
        pass


TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="unset")


class Tenants(Adapter):
    """Commands that read the caller's context, change it, and do not change it back."""

    thread_safe = True

    def setup(self) -> None:
        TENANT.set("from setup")
        decimal.getcontext().prec = 9

    def swap(self, name: str) -> list[Any]:
        found = [TENANT.get(), decimal.getcontext().prec]
        TENANT.set(name)
        decimal.getcontext().prec = 3
        return found

    @command
    def plain(self, name: str) -> list[Any]:
        return self.swap(name)

    @command
    def stream(self, name: str) -> Iterator[Any]:
        yield self.swap(name)
        yield self.swap(name)

    @command
    async def coroutine(self, name: str) -> list[Any]:
        await asyncio.sleep(0)
        return self.swap(name)

    @command
    async def astream(self, name: str) -> AsyncIterator[Any]:
        yield self.swap(name)
        await asyncio.sleep(0)
        yield self.swap(name)


class Forks(Adapter):
    """Commands that fork the worker. The child of each comes back to the worker's code in its own way."""

    thread_safe = True

    def setup(self) -> None:
        self.fork()

    def teardown(self) -> None:
        if not self.fork():
            print(self.ended())

    def fork(self) -> bool:
        """Return True in the child. The parent returns after its child has begun and can end."""
        reader, writer = os.pipe()
        if child := os.fork():
            os.close(writer)
            os.read(reader, 1)
            os.close(reader)
            self.child = child
            return False
        os.write(writer, b"x")
        return True

    @command
    def ended(self) -> list[int]:
        """Wait for the child; return its pid and its exit code."""
        _, status = os.waitpid(self.child, 0)
        return [os.getpid(), os.waitstatus_to_exitcode(status)]

    @command
    def returns(self, ctx: Context) -> Any:
        if self.fork():
            ctx.log("a line of the child")
            ctx.progress(0.5)
            return "an answer of the child"
        return self.ended()

    @command
    def raises(self) -> Any:
        if self.fork():
            raise ValueError("an error of the child")
        return self.ended()

    @command
    def leaves(self) -> Any:
        if self.fork():
            sys.exit(7)
        return self.ended()

    @command
    def streams(self) -> Iterator[Any]:
        yield "before"
        if self.fork():
            yield "a chunk of the child"
        yield self.ended()

    @command
    async def awaits(self) -> Any:
        if self.fork():
            return "an answer of the child"
        return self.ended()

    @command
    async def astreams(self) -> AsyncIterator[Any]:
        yield "before"
        if self.fork():
            yield "a chunk of the child"
        yield self.ended()

    @command
    def pid(self) -> int:
        return os.getpid()


def fork_and_return() -> None:
    if child := os.fork():
        os.waitpid(child, 0)


def lower(limit: str, soft: int, hard: int | None = None) -> None:
    resource: Any = importlib.import_module("resource")
    number = getattr(resource, limit)
    resource.setrlimit(number, (soft, resource.getrlimit(number)[1] if hard is None else hard))


def redirect() -> None:
    other = os.open(os.devnull, os.O_WRONLY)
    os.dup2(other, 1)
    os.close(other)


def put_others() -> None:
    last = os.open(os.devnull, os.O_RDWR)
    os.closerange(3, 4096)
    while os.open(os.devnull, os.O_RDWR) < last:
        pass


def read_umask() -> int:
    found = os.umask(0o77)
    os.umask(found)
    return found


def leave_a_thread() -> None:
    threading.Thread(target=threading.Event().wait, name="left", daemon=True).start()


TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="")


def set_wakeup() -> None:
    """As a program does that forgets it: the socket is closed, and its number is free."""
    with socket.socket() as woken:
        woken.setblocking(False)
        signal.set_wakeup_fd(woken.fileno())


def read_wakeup() -> int:
    """The descriptor that signals wake; reading it clears it, and a closed one cannot be set again."""
    found = signal.set_wakeup_fd(-1)
    if found >= 0:
        with contextlib.suppress(OSError):
            signal.set_wakeup_fd(found)
    return found


class NoLoops(asyncio.DefaultEventLoopPolicy if sys.version_info < (3, 14) else object):  # type: ignore[misc]
    def new_event_loop(self) -> Any:
        raise RuntimeError("no loop")


class Meddler(Adapter):
    """Does what the rows of docs/explanation/containment.md say, and shows where it is seen."""

    actions: ClassVar[dict[str, Callable[[], Any]]] = {
        "sets a context variable": lambda: TENANT.set("acme"),
        "sets a decimal context": lambda: setattr(decimal.getcontext(), "prec", 3),
        "sets an environment variable": lambda: os.environ.update(TENANT="acme", TZ="Asia/Tokyo"),
        "empties the environment": os.environ.clear,
        "changes the working directory": lambda: os.chdir("/"),
        "sets the umask": lambda: os.umask(0o777),
        "blocks a signal": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]),
        "sets a signal handler": lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
        "starts an interval timer": lambda: signal.setitimer(signal.ITIMER_REAL, 3600),
        "replaces sys.stdout": lambda: setattr(sys, "stdout", io.StringIO()),
        "closes sys.stdout": lambda: sys.stdout.close(),
        "replaces sys.stdin": lambda: setattr(sys, "stdin", io.StringIO()),
        "redirects descriptor 1": redirect,
        "makes descriptor 1 non-blocking": lambda: os.set_blocking(1, False),
        "replaces os.environ": lambda: setattr(os, "environ", {"TENANT": "acme"}),
        "sets the policy of event loops": lambda: asyncio.set_event_loop_policy(NoLoops()),
        "closes descriptor 2": lambda: os.close(2),
        "sets the locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
        "adds a warnings filter": lambda: warnings.simplefilter("error"),
        "sets the recursion limit": lambda: sys.setrecursionlimit(321),
        "sets a trace function": lambda: sys.settrace(lambda *_: None),
        "sets a default socket timeout": lambda: socket.setdefaulttimeout(9),
        "switches garbage collection off": gc.disable,
        "replaces an exception hook": lambda: setattr(sys, "excepthook", None),
        "replaces the exception hook of threads": lambda: setattr(threading, "excepthook", print),
        "sets the switch interval": lambda: sys.setswitchinterval(0.25),
        "sets the limit of digits of an int": lambda: sys.set_int_max_str_digits(640),
        "starts a timer of CPU time": lambda: signal.setitimer(signal.ITIMER_PROF, 3600),
        "starts a watchdog of faulthandler": lambda: faulthandler.dump_traceback_later(3600, exit=True),
        "switches faulthandler off": faulthandler.disable,
        "closes sys.stdin": lambda: sys.stdin.close(),
        "closes descriptor 0": lambda: os.close(0),
        "takes the buffer of sys.stdout": lambda: sys.stdout.detach(),
        "changes the encoding of sys.stdout": lambda: sys.stdout.reconfigure(encoding="ascii"),
        "replaces the hook of errors in finalizers": lambda: setattr(sys, "unraisablehook", print),
        "replaces the hook of breakpoint()": lambda: setattr(sys, "breakpointhook", None),
        "sets a trace function for new threads": lambda: threading.settrace(print),
        "sets the stack size of new threads": lambda: threading.stack_size(2**20),
        "sets flags to debug garbage collection": lambda: gc.set_debug(gc.DEBUG_STATS),
        "sets hooks of asynchronous generators": lambda: sys.set_asyncgen_hooks(firstiter=print),
        "sets the descriptor that signals wake": set_wakeup,
        "lowers a soft limit": lambda: lower("RLIMIT_CPU", 100_000),
        "lowers a hard limit": lambda: lower("RLIMIT_CPU", 100_000, 100_000),
        "closes the worker's descriptors": lambda: os.closerange(3, 4096),
        "puts other files in place of the worker's descriptors": put_others,
        "forks and returns in the child": fork_and_return,
        "leaves a thread behind": leave_a_thread,
        "seeds the random generator": lambda: random.seed(7),
        "changes sys.path": lambda: sys.path.append("/left"),
        "imports a module": lambda: importlib.import_module("this"),
        "changes decimal.DefaultContext": lambda: setattr(decimal.DefaultContext, "prec", 7),
        "switches logging off": logging.disable,
    }

    async def setup(self) -> None:
        self.tasks: list[Any] = []
        self.mark = 0
        os.environ["OF_SETUP"] = "1"
        asyncio.get_running_loop().slow_callback_duration = 0.125

    def look(self) -> dict[str, Any]:
        return {
            "variables": [TENANT.get(), decimal.getcontext().prec],
            "environment": [type(os.environ), sorted(os.environ), time.tzname],
            "files": [os.getcwd(), read_umask()],
            "signals": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "handlers": [str(signal.getsignal(number)) for number in (signal.SIGUSR1, signal.SIGTERM)],
            "timer": [signal.getitimer(timer)[0] for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF)],
            "watchdogs": len(os.listdir("/proc/self/task")) - len(threading.enumerate()),
            "wakeup": read_wakeup(),
            "streams": [str(type(stream)) for stream in (sys.stdin, sys.stdout)],
            "closed": [sys.stdin.closed, sys.stdout.closed, sys.stderr.closed],
            "text": [str(sys.stdout.encoding).lower(), sys.stdout.errors, sys.stdout.line_buffering],
            "blocking": [os.get_blocking(descriptor) for descriptor in (0, 1, 2)],
            "policy": type(asyncio.get_event_loop_policy()).__name__ if sys.version_info < (3, 14) else "",
            "ends": [os.fstat(descriptor).st_ino for descriptor in (0, 1, 2)],
            "locale": locale.setlocale(locale.LC_ALL),
            "interpreter": [len(warnings.filters), sys.getrecursionlimit(), str(sys.gettrace()), gc.isenabled()],
            "timeout": socket.getdefaulttimeout(),
            "hooks": [str(sys.excepthook), str(threading.excepthook), str(sys.unraisablehook), str(sys.breakpointhook)],
            "debugging": [faulthandler.is_enabled(), gc.get_debug(), str(sys.get_asyncgen_hooks())],
            "new threads": [str(threading.gettrace()), threading.stack_size()],
            "defaults": [decimal.DefaultContext.prec, logging.root.manager.disable],
            "turns": [sys.getswitchinterval(), sys.get_int_max_str_digits()],
            "limit": pathlib.Path("/proc/self/limits").read_text(),
            "threads": [one.name for one in threading.enumerate() if one.name == "left"],
            "modules": [sys.path, "this" in sys.modules],
            "random": hash(random.getstate()),
            "adapter": [self.mark, [task.cancelled() for task in self.tasks], atexit._ncallbacks()],
            "children": len(pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()),
        }

    @command
    def state(self) -> str:
        return repr(self.look())

    @command
    def change(self, what: str) -> bool:
        """Do it, and return whether this call sees it itself."""
        before = repr(self.look())
        self.actions[what]()
        try:
            return repr(self.look()) != before
        except (OSError, ValueError):  # a descriptor or stream is closed
            return True

    @command(idempotent=True)
    def change_again(self, what: str) -> None:
        """Do it in a call that shares the check of the process."""
        self.actions[what]()

    @command(idempotent=True)
    def visit(self, change: bool) -> list[Any]:
        """Return what this call sees, and change it then."""
        seen = [os.getcwd(), read_umask(), os.environ.get("TENANT"), list(signal.pthread_sigmask(signal.SIG_BLOCK, ()))]
        if change:
            for what in ("changes the working directory", "sets the umask", "blocks a signal"):
                self.actions[what]()
            os.environ["TENANT"] = "acme"
        return seen

    @command(idempotent=True)
    def linger(self, ctx: Context) -> None:
        while not ctx.wait(3600):
            pass

    @command
    def replace(self, port: int, only: int = -1) -> int:
        """Put TCP connections in place of this worker's sockets and event loop, all or one; return how many."""
        own = []
        for number in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{number}").startswith(("socket:", "anon_inode:")):
                    own.append(number)
        own.sort()
        for number in own if only < 0 else own[only : only + 1]:
            with socket.create_connection(("127.0.0.1", port)) as theirs:
                os.dup2(theirs.fileno(), number)
        return len(own)

    @command
    async def leave_a_task(self) -> bool:
        self.tasks.append(asyncio.create_task(asyncio.sleep(3600)))
        return True

    @command
    async def loop_state(self) -> str:
        loop = asyncio.get_running_loop()
        slow = getattr(loop, "slow_callback_duration", None)
        return repr([loop.get_task_factory(), loop.get_exception_handler(), loop.get_debug(), slow])

    @command
    async def change_loop(self, what: str) -> bool:
        loop = asyncio.get_running_loop()
        if "factory" in what:
            loop.set_task_factory(lambda *_: sys.exit("no task"))
        elif "handler" in what:
            loop.set_exception_handler(lambda *_: sys.exit("no handler"))
        else:
            loop.set_debug(True)
        return True

    @command
    def of_the_adapter(self, what: str) -> bool:
        if what == "changes an attribute of the adapter":
            self.mark += 1
        elif what == "registers an exit handler":
            atexit.register(print, "the exit handler ran")
        else:
            self.child = subprocess.Popen(["sleep", "3600"])
        return True

    @command
    def pid(self) -> int:
        return os.getpid()

    @command
    def objects(self) -> int:
        """How many objects the collector tracks."""
        gc.collect()
        return len(gc.get_objects())

    def teardown(self) -> None:
        if hasattr(self, "child"):
            self.child.kill()
            self.child.wait()

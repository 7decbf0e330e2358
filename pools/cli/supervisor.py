"""Runs the child processes of one foreground command: starts, watches and stops them in order, and leaves none behind.

    children ──output──▶ a reader thread each ──▶ stdout, with a coloured name before each line
    children ──exit────▶ a waiter thread each ──┐
    signals, readiness ─────────────────────────┴─▶ events ──▶ main thread: `Supervisor.next`

Each child has its own process group, so Ctrl-C reaches only the supervisor, which stops the children in its order. The
kernel kills a child when the thread that started it ends (PDEATHSIG), so only the main thread may call `start`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

import snakepit
from snakepit.pools.cli.output import colour
from snakepit.workers.process import inherited

COLOURS = ("\x1b[36m", "\x1b[35m", "\x1b[33m", "\x1b[34m", "\x1b[32m")
NAME_WIDTH = 7
LINES_KEPT = 20
LONGEST_LINE = 4000  # characters; the rest of a line is dropped
STOP_WITHIN = 5.0  # seconds for all children together
ONE_STOP = 0.5  # seconds in which further signals belong to the same stop
AFTER_KILL = 2.0  # seconds for the kernel to remove killed processes


@dataclass(frozen=True, slots=True)
class Program:
    """What a child runs, and how it is stopped."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    patience: float = 2.0  # seconds between SIGTERM and the urgent signal
    urgent: signal.Signals = signal.SIGTERM


class Child:
    """One running program."""

    def __init__(self, program: Program, process: subprocess.Popen[str], prefix: str) -> None:
        self.program = program
        self.process = process
        self.prefix = prefix
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.reader: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def wait(self, timeout: float) -> bool:
        try:
            self.process.wait(max(0.0, timeout))
        except subprocess.TimeoutExpired:
            return False
        return True

    def exit_report(self) -> str:
        """Why it ended, and its last lines."""
        code = self.process.returncode
        how = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        last = "".join(f"\n  {line}" for line in self.lines)
        return f"{self.program.name} ended ({how})" + (f"; its last lines:{last}" if last else "")


@dataclass(frozen=True, slots=True)
class SupervisorEvent:
    """An event for the main thread: a child ended, a signal came, or `post` was called."""

    kind: str  # "exit", "stop", or the kind that `post` was given
    child: Child | None = None
    value: Any = None


class Supervisor:
    """Starts children, and stops the youngest first. Use as a context manager: at its end no child is left."""

    def __init__(self, output: IO[str] | None = None, environment: Mapping[str, str] | None = None) -> None:
        self.children: list[Child] = []
        self.hurried = False  # a second Ctrl-C came
        self._output = output or sys.stdout
        self._environment = dict(os.environ if environment is None else environment)
        self._events: queue.SimpleQueue[SupervisorEvent] = (
            queue.SimpleQueue()
        )  # its `put` may be called in a signal handler
        self._lock = threading.Lock()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, program: Program) -> Child:
        """Start a program; its exit will be an event."""
        guard = [sys.executable, "-m", "snakepit.workers.process.parent_death", str(os.getpid()), "--"]
        process = subprocess.Popen(
            [*guard, *program.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
            process_group=0,
            env={**self._environment, "PYTHONPATH": _python_path(), "PYTHONUNBUFFERED": "1", **program.environment},
        )
        code = COLOURS[len(self.children) % len(COLOURS)]
        child = Child(program, process, colour(f"{program.name:<{NAME_WIDTH}} |", code, stream=self._output))
        self.children.append(child)
        child.reader = threading.Thread(target=self._read, args=(child,), name=f"{program.name} output", daemon=True)
        child.reader.start()
        threading.Thread(target=self._wait, args=(child,), name=f"{program.name} exit", daemon=True).start()
        return child

    def write(self, text: str) -> None:
        """Print lines of the supervisor, not mixed with those of a child."""
        with self._lock:
            self._output.write(text + "\n")
            self._output.flush()

    def post(self, kind: str, value: Any = None) -> None:
        """Wake the main thread."""
        self._events.put(SupervisorEvent(kind, value=value))

    def next(self, timeout: float | None = None) -> SupervisorEvent | None:
        """Wait for the next event; None after `timeout`."""
        with contextlib.suppress(queue.Empty):
            return self._events.get(timeout=timeout)
        return None

    def stop(self, within: float = STOP_WITHIN) -> None:
        """Stop all children, the youngest first: SIGTERM, then the urgent signal, then SIGKILL."""
        deadline = time.monotonic() + within
        order = self.children[::-1]
        for child in order:
            self._ask(child, deadline)
        for child in order:
            while child.alive and not self.hurried and time.monotonic() < deadline:
                child.wait(0.05)
            child.kill_group()  # the whole group, with processes that the child left behind
        for child in order:
            child.wait(AFTER_KILL)
            if child.reader is not None:
                child.reader.join(AFTER_KILL)
            if child.process.stdout is not None and not (child.reader and child.reader.is_alive()):
                child.process.stdout.close()

    def _ask(self, child: Child, deadline: float) -> None:
        if not child.alive:
            return
        child.signal(signal.SIGTERM)
        patience = min(time.monotonic() + child.program.patience, deadline)
        while child.alive and not self.hurried and time.monotonic() < patience:
            child.wait(0.05)
        if child.alive:
            child.signal(child.program.urgent)
            child.wait(min(0.5, deadline - time.monotonic()))

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Turn SIGINT, SIGTERM and, without nohup, SIGHUP into events; a second one kills immediately."""

        first = 0.0

        def handle(number: int, _: FrameType | None) -> None:
            nonlocal first
            first = first or time.monotonic()
            # One stop often comes twice: `timeout`, make and init systems signal the process, and then its group.
            self.hurried = self.hurried or time.monotonic() - first > ONE_STOP
            self._events.put(SupervisorEvent("stop", value=signal.Signals(number).name))

        watched = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not inherited.survive:
            watched.append(signal.SIGHUP)
        before = [(number, signal.signal(number, handle)) for number in watched]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    def _read(self, child: Child) -> None:
        assert child.process.stdout is not None
        for line in child.process.stdout:
            text = line.rstrip("\n")[:LONGEST_LINE]
            child.lines.append(text)
            self.write(f"{child.prefix} {text}")

    def _wait(self, child: Child) -> None:
        child.process.wait()
        if child.reader is not None:
            child.reader.join(0.5)  # so that its last lines come first; a grandchild may hold the pipe open
        self._events.put(SupervisorEvent("exit", child))


def _python_path() -> str:
    """PYTHONPATH for the children: this package, then the present value."""
    ours = str(Path(snakepit.__file__).parents[1])
    return os.pathsep.join(dict.fromkeys([ours, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))


Check = Callable[[], bool]


def wait_for(check: Check, timeout: float, given_up: threading.Event) -> bool:
    """Poll `check` until it is true; not for the main thread."""
    deadline = time.monotonic() + timeout
    while not given_up.is_set() and time.monotonic() < deadline:
        if check():
            return True
        given_up.wait(0.1)
    return False

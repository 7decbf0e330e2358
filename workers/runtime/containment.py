"""Undoes after each call what it changed in the process, so that the next call does not see it.

     start ──▶ Baseline (after setup)     each call ──▶ restore() ──▶ undone, or Uncontained: the worker ends

Only in the process profile, where one call runs at a time. The state that is looked at takes a few system calls; what
takes longer to compare, or has legitimate changes (imports, random generators, loggers), stays as the call left it.
docs/explanation/containment.md has the table.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import locale
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The functions of `signal` make enums of their answers, which takes up to ten times as long.
_signal: Any = importlib.import_module("_signal")
get_handler: Callable[[int], Any] = getattr(_signal, "getsignal", signal.getsignal)
get_mask: Callable[[int, tuple[()]], set[int]] = getattr(_signal, "pthread_sigmask", signal.pthread_sigmask)
MARK = 37  # a signal that marks an open file; it is sent only for a file with O_ASYNC, which these have not
PASS = getattr(os, "O_PATH", os.O_RDONLY)  # a sandbox may refuse to read it
HIGH = 200  # copies of descriptors get numbers from here on, away from those that a command opens
UNCHANGED = "unlimited"
LIMITS = {
    "Max cpu time": "RLIMIT_CPU",
    "Max file size": "RLIMIT_FSIZE",
    "Max data size": "RLIMIT_DATA",
    "Max stack size": "RLIMIT_STACK",
    "Max core file size": "RLIMIT_CORE",
    "Max open files": "RLIMIT_NOFILE",
    "Max address space": "RLIMIT_AS",
    "Max processes": "RLIMIT_NPROC",
}


CUT_OFF = "it closed descriptors that the worker needs"


class Uncontained(Exception):
    """A call changed something that cannot be undone. The worker must end."""

    @property
    def cut_off(self) -> bool:
        """Whether the link to the broker is gone, too."""
        return str(self) == CUT_OFF


class Containment:
    """The process as `setup` left it. Made on the main thread, which alone may set signal handlers."""

    def __init__(self, watched: tuple[int, ...] = ()) -> None:
        """`watched`: descriptors without which the worker cannot work."""
        self._watched = {descriptor: _identity(descriptor) for descriptor in watched}
        self._streams = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
        self._outputs = {descriptor: _identity(descriptor) for descriptor in (1, 2)}
        self._copies = {descriptor: fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH) for descriptor in (1, 2)}
        self._directory = os.open(".", PASS | os.O_DIRECTORY | os.O_CLOEXEC)
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._handlers = {int(number): get_handler(number) for number in _handled()}
        self._no_timer = signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
        self._environment = dict(os.environ)
        self._raw = dict(_environment())
        self._locale = locale.setlocale(locale.LC_ALL)
        self._filters, self._show = list(warnings.filters), warnings.showwarning
        self._limits = read_limits()
        self._settings = [(read, write, read()) for read, write in SETTINGS]
        self._marked = mark_files((*watched, 1, 2))
        self._signals, self._functions = tuple(self._handlers), tuple(self._handlers.values())

    def restore(self) -> None:
        """Undo what a call changed. Raises Uncontained where that is not possible."""
        # Nearly all calls change nothing. To see that takes half as long as to restore each part.
        if not (self._is_process_unchanged() and self._is_interpreter_unchanged()):
            self._restore_all()
        if "resource" in sys.modules:  # nothing in this package imports it: without it, no limit has changed
            self._restore_limits()

    def _is_process_unchanged(self) -> bool:
        """Sets umask and working directory. Returns whether descriptors and signals are as they were."""
        os.umask(self._umask)
        try:
            os.fchdir(self._directory)
            for descriptor, get_mark, mark in self._marked:
                if get_mark(descriptor) != mark:
                    return False
        except OSError:
            return False
        return (
            get_mask(signal.SIG_BLOCK, ()) == self._mask
            and not (self._no_timer and signal.getitimer(signal.ITIMER_REAL)[0])
            and tuple(map(get_handler, self._signals)) == self._functions
        )

    def _is_interpreter_unchanged(self) -> bool:
        for name, stream in self._streams.items():
            if getattr(sys, name) is not stream:
                return False
        if (sys.stdout and sys.stdout.closed) or (sys.stderr and sys.stderr.closed):
            return False
        for read, _, value in self._settings:
            if read() != value:
                return False
        return (
            _environment() == self._raw
            and locale.setlocale(locale.LC_ALL) == self._locale
            and warnings.filters == self._filters
            and warnings.showwarning is self._show
        )

    def _restore_all(self) -> None:
        os.umask(self._umask)
        try:
            os.fchdir(self._directory)
            for descriptor, identity in self._watched.items():
                if _identity(descriptor) != identity:
                    raise Uncontained(CUT_OFF)
        except OSError:
            raise Uncontained(CUT_OFF) from None
        self._restore_output()
        self._restore_signals()
        self._restore_interpreter()

    def _restore_output(self) -> None:
        for name, stream in self._streams.items():
            if getattr(sys, name) is not stream:
                setattr(sys, name, stream)
        for descriptor, identity in self._outputs.items():
            try:
                if _identity(descriptor) == identity:
                    continue
            except OSError:  # closed
                pass
            try:
                os.dup2(self._copies[descriptor], descriptor)
            except OSError:
                raise Uncontained(CUT_OFF) from None
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            if self._streams[name] is not None and self._streams[name].closed:
                made = os.fdopen(descriptor, "w", buffering=1, closefd=False, errors="backslashreplace")
                self._streams[name] = made
                setattr(sys, name, made)

    def _restore_signals(self) -> None:
        if signal.pthread_sigmask(signal.SIG_BLOCK, ()) != self._mask:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        if self._no_timer and signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._handlers.items():
            if get_handler(number) is not handler and handler is not None:
                signal.signal(number, handler)

    def _restore_interpreter(self) -> None:
        if _environment() != self._raw:
            zone = os.environ.get("TZ")
            os.environ.clear()
            os.environ.update(self._environment)
            if zone != self._environment.get("TZ"):
                time.tzset()
        if locale.setlocale(locale.LC_ALL) != self._locale:
            locale.setlocale(locale.LC_ALL, self._locale)
        if warnings.filters != self._filters:
            warnings.resetwarnings()  # also forgets which warnings were shown
            warnings.filters[:] = self._filters  # type: ignore[index]
        if warnings.showwarning is not self._show:
            warnings.showwarning = self._show
        for read, write, value in self._settings:
            if read() != value:
                write(value)

    def _restore_limits(self) -> None:
        resource: Any = importlib.import_module("resource")
        for name, (soft, hard) in self._limits.items():
            number = getattr(resource, name)
            found = resource.getrlimit(number)
            if found == (soft, hard):
                continue
            try:
                resource.setrlimit(number, (soft, hard))
            except (ValueError, OSError):  # a hard limit that was lowered stays so, without a privilege
                raise Uncontained(f"it lowered the hard limit {name}") from None

    def close(self) -> None:
        """Close the copies of descriptors."""
        for descriptor in (*self._copies.values(), self._directory):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _environment() -> Any:
    """The dict behind os.environ, which compares ten times as fast; os.environ itself where there is none."""
    return getattr(os.environ, "_data", os.environ)


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def mark_files(descriptors: tuple[int, ...]) -> list[tuple[int, Callable[[int], Any], Any]]:
    """A way to see that each descriptor still means the same open file: what to call with it, and what that returns.

    A mark of the open file itself is read in a third of the time of fstat. Linux has such marks.
    """
    made: list[tuple[int, Callable[[int], Any], Any]] = []
    for descriptor in descriptors:
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, MARK)
            made.append((descriptor, _mark_of, MARK))
        except (AttributeError, OSError):
            made.append((descriptor, _identity, _identity(descriptor)))
    return made


def _mark_of(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_GETSIG)


def _handled() -> list[int]:
    """The signals that may have a handler, without those of real time, which nearly no program uses."""
    fixed = (signal.SIGKILL, signal.SIGSTOP)
    return [number for number in signal.valid_signals() if number < 32 and number not in fixed]


def read_limits() -> dict[str, tuple[int, int]]:
    """The limits of this process as the module `resource` shows them, without its import; none outside of Linux."""
    found: dict[str, tuple[int, int]] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/limits").read_text().splitlines():
            name = LIMITS.get(line[:26].strip())
            if name:
                soft, hard = line[26:].split()[:2]
                found[name] = (_limit(soft), _limit(hard))
    return found


def _limit(text: str) -> int:
    return -1 if text == UNCHANGED else int(text)


def _switch_gc(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()


SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (sys.gettrace, sys.settrace),
    (sys.getprofile, sys.setprofile),
    (socket.getdefaulttimeout, socket.setdefaulttimeout),
    (gc.isenabled, _switch_gc),
    (gc.get_threshold, lambda thresholds: gc.set_threshold(*thresholds)),
)

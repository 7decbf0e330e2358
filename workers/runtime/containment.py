"""Undoes after each call what it changed in the process, so that the next call does not see it.

     start ──▶ Baseline (after setup)     each call ──▶ restore() ──▶ undone, or Uncontained: the worker ends

Only in the process profile, where one call runs at a time. The state that is looked at takes a few system calls; what
takes longer to compare, or has legitimate changes (imports, random generators, loggers), stays as the call left it.
docs/explanation/containment.md has the table.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import fcntl
import gc
import importlib
import io
import locale
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from snakepit.workers.runtime.limits import read_limits, restore_limits

# The functions of `signal` make enums of their answers, which takes up to ten times as long.
_signal: Any = importlib.import_module("_signal")
get_handler: Callable[[int], Any] = getattr(_signal, "getsignal", signal.getsignal)
get_mask: Callable[[int, tuple[()]], set[int]] = getattr(_signal, "pthread_sigmask", signal.pthread_sigmask)
set_wakeup: Callable[[int], int] = getattr(_signal, "set_wakeup_fd", signal.set_wakeup_fd)
TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
STREAMS = (0, 1, 2)
MARK = 37  # a signal that marks an open file; it is sent only for a file with O_ASYNC, which these have not
PASS = getattr(os, "O_PATH", os.O_RDONLY)  # a sandbox may refuse to read it
HIGH = 200  # copies of descriptors get numbers from here on, away from those that a command opens
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
        self._stdin, self._stdout, self._stderr = sys.stdin, sys.stdout, sys.stderr
        self._forms = [_form(stream) for stream in (self._stdout, self._stderr)]
        self._streams = {descriptor: _identity(descriptor) for descriptor in STREAMS}
        self._copies = {descriptor: _copy(descriptor) for descriptor in STREAMS}
        self._directory = os.open(".", PASS | os.O_DIRECTORY | os.O_CLOEXEC)
        self._path = _working_directory()
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._handlers = {int(number): get_handler(number) for number in _handled()}
        self._unused_timers = tuple(timer for timer in TIMERS if signal.getitimer(timer)[0] == 0.0)
        self._environ, self._environment = os.environ, dict(os.environ)
        self._raw = dict(_environment())
        self._locale = locale.setlocale(locale.LC_ALL)
        self._filters, self._show = list(warnings.filters), warnings.showwarning
        self._limits = read_limits()
        self._values = read_settings()
        self._own_values = read_thread_settings()
        self._status = read_status()
        self._flags = [(descriptor, fcntl.fcntl(descriptor, fcntl.F_GETFL)) for descriptor in STREAMS[1:]]
        self._marked = [*mark_files((*watched, *STREAMS)), *map(_flags_of, self._flags)]
        self._signals, self._functions = list(self._handlers), list(self._handlers.values())

    def restore(self) -> bool:
        """Undo what a call changed; return whether there was anything. Raises Uncontained where it is not possible."""
        changed = not self._is_unchanged()  # nearly all calls change nothing
        if changed:
            self._restore_all()
        # Nothing in this package imports `resource`: without it, no limit has changed.
        if "resource" in sys.modules and (lowered := restore_limits(self._limits)):
            raise Uncontained(f"it lowered the hard limit {lowered}")
        return changed

    def _is_unchanged(self) -> bool:
        """Set the umask and stop timers, which takes no longer than reading them. Return whether all is as it was."""
        unchanged = os.umask(self._umask) == self._umask and _working_directory() == self._path
        for timer in self._unused_timers:
            if signal.setitimer(timer, 0)[0]:
                unchanged = False
        faulthandler.cancel_dump_traceback_later()
        return (
            unchanged
            and get_mask(signal.SIG_BLOCK, ()) == self._mask
            and read_thread_settings() == self._own_values
            and self._is_interpreter_unchanged()
        )

    def _is_interpreter_unchanged(self) -> bool:
        """Written out: a loop or a helper takes as long as most of these comparisons."""
        try:
            for read_mark, mark in self._marked:
                if read_mark() != mark:
                    return False
            stdin, stdout, stderr = sys.stdin, sys.stdout, sys.stderr
            if (stdin and stdin.closed) or (stdout and stdout.closed) or (stderr and stderr.closed):
                return False
        except (OSError, ValueError):  # a closed descriptor; a stream without its buffer
            return False
        return (
            stdout is self._stdout
            and stderr is self._stderr
            and stdin is self._stdin
            and [_form(stdout), _form(stderr)] == self._forms
            and os.environ is self._environ
            and getattr(self._environ, "_data", self._environ) == self._raw
            and list(map(get_handler, self._signals)) == self._functions
            and read_settings() == self._values
            and locale.setlocale(locale.LC_ALL) == self._locale
            and warnings.filters == self._filters
            and warnings.showwarning is self._show
        )

    def is_unchanged_beside(self) -> bool:
        """The same for another thread, while the main thread runs a call: it changes nothing, and takes longer.

        What the kernel keeps of the main thread is in /proc; its trace function cannot be seen from here.
        """
        try:
            here, there = os.stat("."), os.fstat(self._directory)
        except OSError:
            return False
        return (
            (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
            and self._status != ""
            and read_status() == self._status
            and not any(signal.getitimer(timer)[0] for timer in self._unused_timers)
            and self._is_interpreter_unchanged()
        )

    def _restore_all(self) -> None:
        os.umask(self._umask)
        try:
            os.fchdir(self._directory)
            self._path = _working_directory()  # another one, if the directory was moved or deleted
            for descriptor, identity in self._watched.items():
                if _identity(descriptor) != identity:
                    raise Uncontained(CUT_OFF)
        except OSError:
            raise Uncontained(CUT_OFF) from None
        self._restore_streams()
        self._restore_signals()
        self._restore_interpreter()

    def _restore_streams(self) -> None:
        for descriptor, identity in self._streams.items():
            try:
                if _identity(descriptor) == identity:
                    continue
            except OSError:  # closed
                pass
            try:
                os.dup2(self._copies[descriptor], descriptor)
            except OSError:
                raise Uncontained(CUT_OFF) from None
        for descriptor, flags in self._flags:  # a child process that makes its own end non-blocking makes ours so
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
        sys.stdin = self._stdin = _opened(self._stdin, 0)
        sys.stdout = self._stdout = _opened(self._stdout, 1)
        sys.stderr = self._stderr = _opened(self._stderr, 2)
        for stream, form in zip((self._stdout, self._stderr), self._forms, strict=True):
            if isinstance(stream, io.TextIOWrapper) and _form(stream) != form:
                stream.reconfigure(encoding=form[0], errors=form[1], line_buffering=form[2])
        self._forms = [_form(stream) for stream in (self._stdout, self._stderr)]

    def _restore_signals(self) -> None:
        if signal.pthread_sigmask(signal.SIG_BLOCK, ()) != self._mask:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        for number, handler in self._handlers.items():
            if get_handler(number) is not handler and handler is not None:
                signal.signal(number, handler)

    def _restore_interpreter(self) -> None:
        os.environ = self._environ  # noqa: B003  a call has put another one in its place
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
        for found, write, value in zip(read_settings(), WRITES, self._values, strict=True):
            if found != value:
                write(value)
        for found, write, value in zip(read_thread_settings(), THREAD_WRITES, self._own_values, strict=True):
            if found != value:
                write(value)

    def close(self) -> None:
        """Close the copies of descriptors."""
        for descriptor in (*self._copies.values(), self._directory):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _copy(descriptor: int) -> int:
    """A copy with a high number, or with any where the limit of open files is below that."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH)
    except OSError:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, len(STREAMS))


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return ""


def _environment() -> Any:
    """The dict behind os.environ, which compares ten times as fast; os.environ itself where there is none."""
    return getattr(os.environ, "_data", os.environ)


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def mark_files(descriptors: tuple[int, ...]) -> list[tuple[Callable[[], Any], Any]]:
    """A way to see that each descriptor still means the same open file: what to call, and what that returns.

    A mark of the open file itself is read in a third of the time of fstat. Linux has such marks.
    """
    made: list[tuple[Callable[[], Any], Any]] = []
    for descriptor in descriptors:
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, MARK)
            made.append((partial(fcntl.fcntl, descriptor, fcntl.F_GETSIG), MARK))
        except (AttributeError, OSError):
            made.append((partial(_identity, descriptor), _identity(descriptor)))
    return made


def _flags_of(known: tuple[int, int]) -> tuple[Callable[[], Any], Any]:
    """A way to see that the flags of a descriptor's open file are those that are known."""
    return partial(fcntl.fcntl, known[0], fcntl.F_GETFL), known[1]


def _opened(stream: TextIO | None, descriptor: int) -> TextIO | None:
    """A standard stream, or another one on its descriptor if a call has closed it or taken its buffer."""
    if stream is None:
        return stream
    with contextlib.suppress(ValueError):
        if not stream.closed:
            return stream
    if descriptor == 0:
        return os.fdopen(0, closefd=False)
    return os.fdopen(descriptor, "w", buffering=1, closefd=False, errors="backslashreplace")


def _form(stream: Any) -> tuple[Any, Any, Any]:
    """How a standard stream writes text: `reconfigure()` changes it."""
    try:
        return stream.encoding, stream.errors, stream.line_buffering
    except (AttributeError, ValueError):  # None, a stream of another kind, or one without its buffer
        return None, None, None


def _handled() -> list[int]:
    """The signals that may have a handler, without those of real time, which nearly no program uses."""
    fixed = (signal.SIGKILL, signal.SIGSTOP)
    return [number for number in signal.valid_signals() if number < 32 and number not in fixed]


def read_status() -> str:
    """Umask and blocked signals of the main thread, as the kernel shows them; empty outside of Linux."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return " ".join(line for line in lines if line.startswith(("Umask:", "SigBlk:")))
    return ""


def _switch_gc(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()


def _set_stack_size(size: int) -> None:
    threading.stack_size(size)


def _switch_faulthandler(enabled: bool) -> None:
    if enabled:
        faulthandler.enable(2)
    else:
        faulthandler.disable()


# From Python 3.14 on, policies of event loops are deprecated, and to read one warns.
get_policy: Callable[[], Any] = asyncio.get_event_loop_policy if sys.version_info < (3, 14) else bool


def read_settings() -> tuple[Any, ...]:
    """The interpreter's settings, in the order of WRITES."""
    return (
        sys.getrecursionlimit(),
        sys.gettrace(),
        sys.getprofile(),
        socket.getdefaulttimeout(),
        gc.isenabled(),
        gc.get_threshold(),
        sys.excepthook,
        threading.excepthook,
        sys.getswitchinterval(),
        sys.get_int_max_str_digits(),
        sys.unraisablehook,
        sys.displayhook,
        sys.breakpointhook,
        threading.gettrace(),
        threading.getprofile(),
        threading.stack_size(),
        gc.get_debug(),
        faulthandler.is_enabled(),
        get_policy(),
    )


WRITES: tuple[Callable[[Any], None], ...] = (
    sys.setrecursionlimit,
    sys.settrace,
    sys.setprofile,
    socket.setdefaulttimeout,
    _switch_gc,
    lambda thresholds: gc.set_threshold(*thresholds),
    partial(setattr, sys, "excepthook"),
    partial(setattr, threading, "excepthook"),
    sys.setswitchinterval,
    sys.set_int_max_str_digits,
    partial(setattr, sys, "unraisablehook"),
    partial(setattr, sys, "displayhook"),
    partial(setattr, sys, "breakpointhook"),
    threading.settrace,
    threading.setprofile,
    _set_stack_size,
    gc.set_debug,
    _switch_faulthandler,
    lambda policy: asyncio.set_event_loop_policy(policy),
)


def read_thread_settings() -> tuple[Any, ...]:
    """The settings that each thread has for itself, in the order of THREAD_WRITES. Call it on the main thread."""
    return sys.get_asyncgen_hooks(), sys.get_coroutine_origin_tracking_depth(), _wakeup()


def _wakeup() -> int:
    """The descriptor that signals wake, which is -1 nearly always: reading it clears it."""
    found = set_wakeup(-1)
    if found >= 0:
        with contextlib.suppress(OSError, ValueError):  # it is closed, or its number belongs to another file now
            set_wakeup(found)
    return found


def _set_wakeup(descriptor: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        set_wakeup(descriptor)


THREAD_WRITES: tuple[Callable[[Any], None], ...] = (
    lambda hooks: sys.set_asyncgen_hooks(*hooks),
    sys.set_coroutine_origin_tracking_depth,
    _set_wakeup,
)

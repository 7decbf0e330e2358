"""The interpreter's settings that a call may change, each with the way to write it back.

`containment.py` compares them after each call.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

_signal: Any = importlib.import_module("_signal")
set_wakeup: Callable[[int], int] = getattr(_signal, "set_wakeup_fd", signal.set_wakeup_fd)


def _switch_gc(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()


def _set_stack_size(size: int) -> None:
    threading.stack_size(size)


def _switch_faulthandler(enabled: bool) -> None:
    if enabled:
        faulthandler.enable(2)
    else:
        faulthandler.disable()


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

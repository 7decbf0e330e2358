"""Checks whether this process may be forked, and names what would not survive a fork.

A fork copies one thread. Locks that other threads hold stay locked forever, a GPU context is unusable in the child,
and a connection would be used by many workers together. The checks read what the kernel shows of this process, so they
do not depend on which library made these things, or how.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

SETTLE = 1.0  # seconds for ending threads: join() returns before the kernel has removed the thread
PAUSE = 0.01
GPU_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/render")
# Native libraries that start threads of their own: a part of the file's name, and the variable that prevents it.
THREADED = {
    "openblas": "OpenBLAS (OPENBLAS_NUM_THREADS)",
    "libgomp": "OpenMP (OMP_NUM_THREADS)",
    "libiomp": "OpenMP (OMP_NUM_THREADS)",
    "libomp": "OpenMP (OMP_NUM_THREADS)",
    "libmkl": "MKL (MKL_NUM_THREADS)",
    "libtbb": "TBB",
    "libarrow": "Arrow (JE_ARROW_MALLOC_CONF)",
    "polars": "Polars (POLARS_MAX_THREADS)",
    "libtorch": "PyTorch",
    "tensorflow": "TensorFlow",
}


def obstacles(own: Iterable[int] = ()) -> list[str]:
    """The reasons against a fork; empty if there are none. `own` are the descriptors of the template itself."""
    return [*_gpu(), *_grpc(), *_connections(frozenset(own)), *_threads()]


def _gpu() -> Iterator[str]:
    torch = sys.modules.get("torch.cuda")
    if torch is not None and torch.is_initialized():
        yield "CUDA is initialised by torch, and does not survive a fork: use the GPU from setup() on"
        return
    for _, target in descriptors():
        if target.startswith(GPU_DEVICES):
            yield f"the GPU is in use ({target} is open), and does not survive a fork: use it from setup() on"
            return


def _grpc() -> Iterator[str]:
    if "grpc._cython.cygrpc" in sys.modules:
        yield "grpcio is imported, and does not survive a fork: import it in setup()"


def _connections(own: frozenset[int]) -> Iterator[str]:
    for number, target in descriptors():
        if number in own:
            continue
        if target.startswith("socket:") and (peer := _stream(number)):
            yield f"a connection is open (descriptor {number}, {peer}), which workers cannot share: open it in setup()"
        elif "eventpoll" in target or "io_uring" in target:
            yield f"an event loop is open (descriptor {number}), which workers cannot share: make it in setup()"


def _stream(number: int) -> str:
    """The address of a stream socket; empty for datagrams, which several processes may send."""
    try:
        with socket.socket(fileno=os.dup(number)) as peek:
            if not peek.type & socket.SOCK_STREAM:
                return ""
            try:
                return f"to {peek.getpeername()}"
            except OSError:
                return f"at {peek.getsockname()}"
    except OSError:
        return ""


def _threads() -> Iterator[str]:
    until = time.monotonic() + SETTLE
    while len(ids := tasks()) > 1 and time.monotonic() < until:
        time.sleep(PAUSE)
    others = [number for number in ids if number != os.getpid()]
    if not others:
        return
    known = {thread.native_id: thread for thread in threading.enumerate()}
    frames = current_frames()
    named = [
        f"{known[number].name!r}{_origin(frames.get(known[number].ident or 0))}" for number in others if number in known
    ]
    native = len(others) - len(named)
    if native:
        named.append(f"{native} native{_suspects()}")
    count = "a thread runs" if len(others) == 1 else f"{len(others)} threads run"
    yield f"{count} beside the main one, and would be missing in every worker: {', '.join(named)}; start it in setup()"


def current_frames() -> dict[int, FrameType]:
    """The frame of each thread, by its identifier.

    CPython 3.11 holds a lock of the interpreter meanwhile. A garbage collection that frees a thread's local data needs
    the same lock, and the process would hang.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        if was_enabled:
            gc.enable()


def _origin(frame: FrameType | None) -> str:
    """The outermost module of a thread's stack, without the standard library's own thread code."""
    place = ""
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in ("threading", "concurrent", "queue", "selectors", "asyncio"):
            place = f" of {name}"
        frame = frame.f_back
    return place


def _suspects() -> str:
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return ""
    loaded = {os.path.basename(line.rpartition(" ")[2]) for line in maps.splitlines() if ".so" in line}
    found = sorted({label for part, label in THREADED.items() if any(part in name for name in loaded)})
    return f", perhaps of {' or '.join(found)}" if found else ""


def tasks() -> list[int]:
    """The ids of this process's threads, from the kernel."""
    return [int(name) for name in os.listdir("/proc/self/task")]


def descriptors() -> list[tuple[int, str]]:
    """The open descriptors of this process, and what each leads to."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except OSError:  # the descriptor of listdir itself
            continue
    return found

"""Starts workers plainly: one new interpreter each, as a child of the broker, in a session of its own.

What the child inherits is listed here and nowhere else: a listening socket, a black box, its boot document, a pipe
for its output, and an environment from an allow-list.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path

import workers
from pools.adapters.process import Output, WorkerProcess
from pools.broker.ports import Exit, LaunchOrder
from pools.broker.spec import PoolSpec, Profile
from workers import blackbox

PROTOCOL = 1  # of the boot document and the worker's wire
# What workers may see of the broker's environment. Everything else, secrets above all, stays here.
ENVIRONMENT = (
    "PATH",
    "HOME",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
)
BLAS_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where workers live and what they are given, the same for all pools of a broker."""

    runtime: Path  # the broker's own directory, 0700
    instance: str  # marks every process of this broker's life, in its environment
    path: tuple[str, ...] = ()  # for the workers' sys.path
    env_names: tuple[str, ...] = ()  # more names that may pass
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


class SpawnLauncher:
    def __init__(self, workplace: Workplace) -> None:
        self._place = workplace
        self._sockets = workplace.runtime / "w"
        self._scratch = workplace.runtime / "tmp"
        self._shim = workplace.runtime / "lib"
        for directory in (self._sockets, self._scratch, self._shim):
            # A killed broker leaves sockets, scratch files, and a link that an upgrade may have made point nowhere.
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(mode=0o700, exist_ok=True)
        # Only `workers`, not the site-packages around it: another interpreter must not find our compiled packages.
        (self._shim / "workers").symlink_to(Path(workers.__file__).parent, target_is_directory=True)
        self._numbers = count(1)
        self._devnull = os.open(os.devnull, os.O_RDONLY)

    async def launch(self, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> WorkerProcess:
        # PDEATHSIG fires when the *thread* that forked ends, so workers are born on the main thread only.
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("workers are started on the broker's main thread only")
        loop = asyncio.get_running_loop()
        scratch = self._scratch / order.worker
        scratch.mkdir(mode=0o700, exist_ok=True)
        path = str(self._sockets / str(next(self._numbers)))  # short: a socket path has some hundred bytes
        with contextlib.ExitStack() as opened:
            listener = opened.enter_context(listen(path))
            box_fd = blackbox.make()
            opened.callback(os.close, box_fd)
            box = blackbox.BlackBox(box_fd)
            boot_fd = _document(_boot_document(order, self._place.instance, listener.fileno(), box_fd))
            opened.callback(os.close, boot_fd)
            out_read, out_write = os.pipe()
            opened.callback(os.close, out_write)
            try:
                child = self._spawn(order, boot_fd, (listener.fileno(), box_fd, boot_fd), out_write)
            except BaseException:
                os.close(out_read)
                box.close()
                os.unlink(path)
                scratch.rmdir()
                raise
        process = WorkerProcess(order.worker, child, path, Output(order.worker, out_read, loop), box, scratch)
        process.watch(loop, on_exit)
        return process

    def _spawn(self, order: LaunchOrder, boot_fd: int, inherited: tuple[int, ...], output: int) -> int:
        python = order.spec.python or sys.executable
        command = [python, "-m", "workers", "--pool", order.spec.name, "--worker", order.worker, "--boot", str(boot_fd)]
        child = subprocess.Popen(
            command,
            stdin=self._devnull,
            stdout=output,
            stderr=output,
            pass_fds=inherited,
            start_new_session=True,
            env=self._environment(order),
            cwd=self._place.path[0] if self._place.path else None,
        )
        child.returncode = 0  # reaped by WorkerProcess; without this the object would warn that nobody waited
        return child.pid

    def _environment(self, order: LaunchOrder) -> dict[str, str]:
        spec, place = order.spec, self._place
        names = (*ENVIRONMENT, *place.env_names)
        env = {key: value for key, value in place.environ.items() if any(fnmatchcase(key, name) for name in names)}
        blas = str(blas_threads(spec))
        env |= dict.fromkeys(BLAS_VARIABLES, blas)
        env |= {
            "PYTHONPATH": os.pathsep.join((str(self._shim), *place.path)),
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
            "MALLOC_ARENA_MAX": "2",
            "TMPDIR": str(self._scratch / order.worker),
            "SNAKEPIT_INSTANCE": place.instance,
            "SNAKEPIT_POOL": spec.name,
            "SNAKEPIT_WORKER": order.worker,
        }
        return env | dict(spec.env)  # the user's own word is the last

    async def close(self) -> None:
        if self._devnull >= 0:
            os.close(self._devnull)
            self._devnull = -1
        (self._shim / "workers").unlink(missing_ok=True)
        for directory in (self._sockets, self._scratch, self._shim):
            with contextlib.suppress(OSError):
                directory.rmdir()


def blas_threads(spec: PoolSpec) -> int:
    """Threads for each call's BLAS, so that slots x threads fit the cores."""
    if spec.profile == Profile.PROCESS:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // spec.threads)


def listen(path: str) -> socket.socket:
    """A listening Unix socket that only this user can reach."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        sock.bind(path)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(mask)
    sock.listen(16)
    return sock


def _document(content: bytes) -> int:
    """A descriptor from which the worker reads its boot document: not argv, not the environment, not a disk."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("snakepit boot document", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as unnamed:
            fd = os.dup(unnamed.fileno())
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _boot_document(order: LaunchOrder, instance: str, listen_fd: int, box_fd: int) -> bytes:
    spec = order.spec
    return json.dumps(
        {
            "protocol": PROTOCOL,
            "worker": order.worker,
            "pool": spec.name,
            "instance": instance,
            "parent": os.getpid(),
            "adapter": order.adapter_path,
            "args": dict(spec.args),
            "profile": str(spec.profile),
            "threads": spec.slots,
            "listen_fd": listen_fd,
            "blackbox_fd": box_fd,
            "blas_threads": blas_threads(spec),
            "max_payload": spec.max_payload,
        }
    ).encode()

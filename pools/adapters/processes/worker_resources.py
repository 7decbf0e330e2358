"""What every worker is given, however it is born: a socket to listen on, a black box, a pipe for output, scratch."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import tempfile
from pathlib import Path

from snakepit.pools.adapters.processes.process import Output, WorkerProcess
from snakepit.pools.broker.ports import LaunchOrder
from snakepit.pools.broker.spec import PoolSpec, Profile
from snakepit.pools.cgroups import usable_cores
from snakepit.workers.process import shared_page
from snakepit.workers.process.boot import PROTOCOL


class WorkerResources:
    """One worker's. The broker gives its ends away, and keeps what a WorkerProcess needs.

    `hand_over` makes the process; without it `discard` takes everything back.
    """

    def __init__(self, worker: str, path: str, scratch: Path) -> None:
        self.worker, self.path, self.scratch = worker, path, scratch
        self._given = contextlib.ExitStack()
        self._kept = contextlib.ExitStack()
        try:
            scratch.mkdir(mode=0o700, exist_ok=True)
            self._kept.callback(shutil.rmtree, scratch, ignore_errors=True)
            self.listener = self._given.enter_context(listen(path))
            self._kept.callback(Path(path).unlink, missing_ok=True)
            self.box_fd = shared_page.make()
            self._given.callback(os.close, self.box_fd)
            self._box = shared_page.SharedPage(self.box_fd)
            self._kept.callback(self._box.close)
            self._output, self.output = os.pipe()
            self._given.callback(os.close, self.output)
            self._kept.callback(os.close, self._output)
        except BaseException:
            self.discard()
            raise

    def given(self) -> None:
        """The worker, or whoever brings it to life, has its own copies by now."""
        self._given.close()

    def hand_over(self, pid: int, pidfd: int, loop: asyncio.AbstractEventLoop) -> WorkerProcess:
        """The process, which has all that is kept from here on."""
        self._kept.pop_all()
        output = Output(self.worker, self._output, loop)
        return WorkerProcess(self.worker, pid, pidfd, output, self.scratch, socket_path=self.path, black_box=self._box)

    def discard(self) -> None:
        self._given.close()
        self._kept.close()


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


def document(content: bytes) -> int:
    """A descriptor from which a process reads its boot document: not argv, not the environment, not a disk."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("snakepit boot document", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as unnamed:
            fd = os.dup(unnamed.fileno())
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def boot_document(order: LaunchOrder, instance: str, listen_fd: int = 0, box_fd: int = 0) -> bytes:
    """What the worker is to be. A forked one knows its descriptors from elsewhere, and its document says 0."""
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
            "shared_page_fd": box_fd,
            "blas_threads": blas_threads(spec),
            "max_payload": spec.max_payload,
            "thread_checks": spec.thread_checks,
        }
    ).encode()


def blas_threads(spec: PoolSpec) -> int:
    """Threads for each call's BLAS, so that slots x threads fit the cores; affinity and cgroup limits count."""
    if spec.profile == Profile.PROCESS:
        return 1
    return max(1, usable_cores() // spec.threads)

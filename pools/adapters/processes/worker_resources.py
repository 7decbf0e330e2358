"""What every worker gets, spawned or forked: a listening socket, a shared page, an output pipe, a scratch directory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

from snakepit.pools.adapters.processes.process import Output, WorkerProcess
from snakepit.pools.adapters.processes.worker_user import WorkerUser
from snakepit.pools.broker.ports import LaunchOrder
from snakepit.pools.broker.sandbox import closes_network, paths_of
from snakepit.pools.broker.spec import PoolSpec, Profile
from snakepit.pools.cgroups import usable_cores
from snakepit.workers import kept_files
from snakepit.workers.process import shared_page
from snakepit.workers.process.boot import PROTOCOL
from snakepit.workers.transport import buffer_inbox

LIMIT_SHARE = 8  # of a pool's memory limit, the part that kept memory files may have


class WorkerResources:
    """The resources of one worker: descriptors that the worker gets, and those that the broker keeps.

    `make_process` turns the kept ones into a WorkerProcess. If the start fails, `discard` releases all.
    """

    def __init__(self, worker: str, path: str, scratch: Path, user: WorkerUser | None = None) -> None:
        self.worker, self.path, self.scratch = worker, path, scratch
        self._given = contextlib.ExitStack()
        self._kept = contextlib.ExitStack()
        try:
            scratch.mkdir(mode=0o700, exist_ok=True)
            self._kept.callback(shutil.rmtree, scratch, ignore_errors=True)
            if user:
                user.own(scratch)
            self.listener = self._given.enter_context(listen(path))
            self._kept.callback(Path(path).unlink, missing_ok=True)
            self.page_fd = shared_page.make()
            self._given.callback(os.close, self.page_fd)
            self._page = shared_page.SharedPage(self.page_fd)
            self._kept.callback(self._page.close)
            self.buffer_fd, self._buffers = 0, None
            if ends := buffer_inbox.pair():
                self._buffers = self._kept.enter_context(ends[0])
                self.buffer_fd = self._given.enter_context(ends[1]).fileno()
            self._output, self.output = os.pipe()
            self._given.callback(os.close, self.output)
            self._kept.callback(os.close, self._output)
        except BaseException:
            self.discard()
            raise

    def close_given(self) -> None:
        """Close the worker's descriptors: the worker, or its template, has its own copies now."""
        self._given.close()

    def make_process(self, pid: int, pidfd: int, loop: asyncio.AbstractEventLoop) -> WorkerProcess:
        """Make the process, which owns the kept resources from now on."""
        self._kept.pop_all()
        output = Output(self.worker, self._output, loop)
        process = WorkerProcess(self.worker, pid, pidfd, output, self.scratch, socket_path=self.path, page=self._page)
        process.buffers = self._buffers
        return process

    def discard(self) -> None:
        self._given.close()
        self._kept.close()


def listen(path: str) -> socket.socket:
    """Open a listening Unix socket that only this user can connect to."""
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
    """A descriptor with this content: for boot documents, which must not be in argv, the environment or on a disk."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("snakepit boot document", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as unnamed:
            fd = os.dup(unnamed.fileno())
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def boot_document(
    order: LaunchOrder,
    instance: str,
    *,
    listener_fd: int = 0,
    page_fd: int = 0,
    buffer_fd: int = 0,
    no_new_privs: bool = False,
    scratch: Path | None = None,
) -> bytes:
    """The worker's configuration. A forked worker gets its descriptors with the fork order: 0 here."""
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
            "parallelism": order.parallelism,
            "listen_fd": listener_fd,
            "shared_page_fd": page_fd,
            "buffer_fd": buffer_fd,
            "kept_bytes": kept_bytes(spec),
            "blas_threads": blas_threads(spec),
            "max_payload": spec.max_payload,
            "thread_checks": spec.thread_checks,
            "no_new_privs": no_new_privs,
            "sandbox": sandbox_document(spec, scratch),
        }
    ).encode()


def sandbox_document(spec: PoolSpec, scratch: Path | None) -> dict[str, Any]:
    """What a worker gives up. Its directory of temporary files, which stays open, is in one of its pool's own."""
    paths = paths_of(spec.sandbox)
    return {
        "network": closes_network(spec.sandbox),
        "paths": None if paths is None else list(paths),
        "scratch": str(scratch.parent) if scratch else "",
    }


def kept_bytes(spec: PoolSpec) -> int:
    """Bytes of memory files that a worker keeps to write again: an eighth of its memory limit, if it has one."""
    limits = [limit for limit in (spec.memory_soft_mb, spec.memory_hard_mb) if limit is not None]
    return min([kept_files.MOST_BYTES, *(int(limit * 2**20) // LIMIT_SHARE for limit in limits)])


def blas_threads(spec: PoolSpec) -> int:
    """Threads of the numeric libraries (BLAS) in a call, so that slots x threads fit the cores that may be used."""
    if spec.profile == Profile.PROCESS:
        return 1
    return max(1, usable_cores() // spec.threads)

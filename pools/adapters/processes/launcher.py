"""Brings workers to life, as children of the broker in sessions of their own: spawned, or forked from a template.

A spawned worker is a new interpreter. What it inherits is listed here and in `resources` and nowhere else: a listening
socket, a black box, its boot document, a pipe for its output, and an environment from an allow-list. A forked worker
gets the same, and its template's environment, which is made by the same rule.
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
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path

import snakepit
from snakepit.pools.adapters.processes.process import Output, WorkerProcess, open_pidfd
from snakepit.pools.adapters.processes.template_process import TemplateProcess
from snakepit.pools.adapters.processes.worker_resources import WorkerResources, blas_threads, boot_document, document
from snakepit.pools.broker.ports import Exit, LaunchOrder, Template, TemplateOrder, TemplateReports
from snakepit.pools.broker.spec import PoolSpec, Preload
from snakepit.workers.process import process_title
from snakepit.workers.process.boot import PROTOCOL
from snakepit.workers.process.vitals import BLAS_VARIABLES
from snakepit.workers.transport import SWITCHES

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
    *SWITCHES,  # of the transport's mechanisms
)


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where workers live and what they are given, the same for all pools of a broker."""

    runtime: Path  # the broker's own directory, 0700
    instance: str  # marks every process of this broker's life, in its environment
    path: tuple[str, ...] = ()  # for the workers' sys.path
    env_names: tuple[str, ...] = ()  # more names that may pass
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


class ProcessLauncher:
    def __init__(self, workplace: Workplace) -> None:
        self._place = workplace
        self._sockets = workplace.runtime / "w"
        self._scratch = workplace.runtime / "tmp"
        self._shim = workplace.runtime / "lib"
        for directory in (self._sockets, self._scratch, self._shim):
            # A killed broker leaves sockets, scratch files, and a link that an upgrade may have made point nowhere.
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(mode=0o700, exist_ok=True)
        # This package alone, not the site-packages around it: another interpreter must not find our compiled packages.
        (self._shim / "snakepit").symlink_to(Path(snakepit.__file__).parent, target_is_directory=True)
        self._numbers = count(1)
        self._devnull = os.open(os.devnull, os.O_RDONLY)

    async def launch(self, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> WorkerProcess:
        loop = asyncio.get_running_loop()
        resources = self._resources(order.worker)
        try:
            listener, box_fd = resources.listener.fileno(), resources.box_fd
            boot_fd = document(boot_document(order, self._place.instance, listener, box_fd))
            options = ["--pool", order.spec.name, "--worker", order.worker, "--boot", str(boot_fd)]
            environment = self._environment(order.spec, order.worker, resources.scratch)
            try:
                child = self._spawn(order.spec, options, environment, (listener, box_fd, boot_fd), resources.output)
            finally:
                os.close(boot_fd)
        except BaseException:
            resources.discard()
            raise
        resources.given()
        process = resources.hand_over(child, open_pidfd(child), loop)
        process.watch(loop, on_exit)
        return process

    async def prepare(self, order: TemplateOrder, reports: TemplateReports) -> TemplateProcess:
        if sys.platform != "linux":  # no subreaper, no /proc: neither adoption nor the proof of safety would work
            raise OSError(f"templates need Linux; this is {sys.platform}")
        loop = asyncio.get_running_loop()
        scratch = self._scratch / order.template
        scratch.mkdir(mode=0o700, exist_ok=True)
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reading, writing = os.pipe()
        boot_fd = document(_template_document(order))
        try:
            # The id comes last, padded, so that a forked worker can write its own over it.
            options = ["--pool", order.spec.name, "--boot", str(boot_fd), "--template", str(theirs.fileno())]
            options += ["--worker", process_title.blank(order.template)]
            environment = self._environment(order.spec, process_title.blank(order.template), scratch)
            child = self._spawn(order.spec, options, environment, (theirs.fileno(), boot_fd), writing)
        except BaseException:
            control.close()
            os.close(reading)
            scratch.rmdir()
            raise
        finally:
            theirs.close()
            os.close(writing)
            os.close(boot_fd)
        control.setblocking(False)
        output = Output(order.template, reading, loop)
        instance = self._place.instance
        template = TemplateProcess(
            order.template, child, open_pidfd(child), output, scratch, control=control, instance=instance
        )
        template.attend(reports)
        return template

    async def fork(self, template: Template, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> WorkerProcess:
        assert isinstance(template, TemplateProcess)
        return await template.fork(self._resources(order.worker), order, on_exit)

    def _resources(self, worker: str) -> WorkerResources:
        # Short: a socket's path has some hundred bytes.
        return WorkerResources(worker, str(self._sockets / str(next(self._numbers))), self._scratch / worker)

    def _spawn(
        self, spec: PoolSpec, options: list[str], environment: dict[str, str], inherited: tuple[int, ...], output: int
    ) -> int:
        # PDEATHSIG fires when the *thread* that forked ends, so processes are born on the main thread only.
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("workers are started on the broker's main thread only")
        child = subprocess.Popen(
            [spec.python or sys.executable, "-m", "snakepit.workers", *options],
            stdin=self._devnull,
            stdout=output,
            stderr=output,
            pass_fds=inherited,
            start_new_session=True,
            env=environment,
            cwd=self._place.path[0] if self._place.path else None,
        )
        child.returncode = 0  # reaped by its ChildProcess; without this the object would warn that nobody waited
        return child.pid

    def _environment(self, spec: PoolSpec, name: str, scratch: Path) -> dict[str, str]:
        place = self._place
        names = (*ENVIRONMENT, *place.env_names)
        env = {key: value for key, value in place.environ.items() if any(fnmatchcase(key, name) for name in names)}
        env |= dict.fromkeys(BLAS_VARIABLES, str(blas_threads(spec)))
        env |= {
            "PYTHONPATH": os.pathsep.join((str(self._shim), *place.path)),
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
            "MALLOC_ARENA_MAX": "2",
            "TMPDIR": str(scratch),
            "SNAKEPIT_INSTANCE": place.instance,
            "SNAKEPIT_POOL": spec.name,
            process_title.VARIABLE: name,
        }
        return env | dict(spec.env)  # the user's own word is the last

    async def close(self) -> None:
        if self._devnull >= 0:
            os.close(self._devnull)
            self._devnull = -1
        (self._shim / "snakepit").unlink(missing_ok=True)
        for directory in (self._sockets, self._scratch, self._shim):
            with contextlib.suppress(OSError):
                directory.rmdir()


def _template_document(order: TemplateOrder) -> bytes:
    return json.dumps(
        {
            "protocol": PROTOCOL,
            "template": order.template,
            "pool": order.spec.name,
            "parent": os.getpid(),
            "adapter": order.adapter_path,
            "args": dict(order.spec.args),
            "always": order.spec.preload == Preload.ON,
        }
    ).encode()

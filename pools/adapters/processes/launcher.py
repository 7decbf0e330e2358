"""Starts workers, as children of the broker in sessions of their own: spawned, or forked by a template.

A spawned worker is a new interpreter. Everything that it inherits is listed here and in `worker_resources`: a listening
socket, a shared page, its boot document, a pipe for its output, and an environment from an allow-list. A forked worker
gets the same, with the environment of its template, which follows the same rule.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path

import snakepit
from snakepit.pools.adapters.processes.free_memory import check_free_memory
from snakepit.pools.adapters.processes.process import Output, WorkerProcess, open_pidfd
from snakepit.pools.adapters.processes.template_process import TemplateProcess
from snakepit.pools.adapters.processes.worker_resources import (
    WorkerResources,
    blas_threads,
    boot_document,
    document,
    sandbox_document,
)
from snakepit.pools.adapters.processes.worker_user import WorkerUser, open_place, without_capabilities
from snakepit.pools.broker.ports import Exit, LaunchOrder, Template, TemplateOrder, TemplateReports
from snakepit.pools.broker.sandbox import paths_of
from snakepit.pools.broker.spec import PoolSpec, Preload
from snakepit.workers.process import process_title
from snakepit.workers.process.boot import PROTOCOL
from snakepit.workers.process.vitals import BLAS_VARIABLES
from snakepit.workers.transport import SWITCHES

# The variables that workers inherit from the broker. All others, secrets above all, are not passed on.
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
class LaunchSettings:
    """What all workers of a broker have in common."""

    runtime: Path  # the broker's own directory, 0700
    instance: str  # the token in the environment of every process of this broker
    path: tuple[str, ...] = ()  # entries of the workers' sys.path
    env_names: tuple[str, ...] = ()  # more variables that workers inherit
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    user: WorkerUser | None = None  # None: workers run as the broker's user


class ProcessLauncher:
    """The broker's Launcher port, with real processes."""

    def __init__(self, settings: LaunchSettings) -> None:
        self._settings = settings
        place = open_place(settings.runtime) if settings.user else settings.runtime
        self._place = place
        self._sockets = settings.runtime / "w"
        self._scratch = place / "tmp"
        self._package_link = place / "lib"
        for directory in (self._sockets, self._scratch, self._package_link):
            # A killed broker leaves sockets, scratch files, and a link whose target an upgrade may have removed.
            shutil.rmtree(directory, ignore_errors=True)
        self._make_directories()
        self._numbers = count(1)
        self._folders: set[Path] = set()  # in self._scratch, of pools whose paths are limited
        self._devnull = os.open(os.devnull, os.O_RDONLY)

    def _make_directories(self) -> None:
        """Make the directories that are missing. A program that cleans /tmp removes what nothing has used for days."""
        for directory in (self._sockets, self._scratch, self._package_link):
            if not directory.is_dir():
                directory.mkdir()
                directory.chmod(0o711 if self._settings.user and directory != self._sockets else 0o700)
        # A link to this package alone: another interpreter must not find the compiled packages of our site-packages.
        link = self._package_link / "snakepit"
        if not link.is_symlink():
            link.symlink_to(Path(snakepit.__file__).parent, target_is_directory=True)

    async def launch(self, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> WorkerProcess:
        check_free_memory()
        loop = asyncio.get_running_loop()
        resources = self._resources(order.spec, order.worker)
        try:
            listener, page_fd, buffers = resources.listener.fileno(), resources.page_fd, resources.buffer_fd
            restricted = self._settings.user is not None
            content = boot_document(
                order,
                self._settings.instance,
                listener_fd=listener,
                page_fd=page_fd,
                buffer_fd=buffers,
                no_new_privs=restricted,
                scratch=resources.scratch,
            )
            boot_fd = document(content)
            options = ["--pool", order.spec.name, "--worker", order.worker, "--boot", str(boot_fd)]
            environment = self._environment(order.spec, order.worker, resources.scratch)
            given = (listener, page_fd, boot_fd, *([buffers] if buffers else []))
            try:
                child = self._spawn(order.spec, options, environment, given, resources.output)
            finally:
                os.close(boot_fd)
        except BaseException:
            resources.discard()
            raise
        resources.close_given()
        process = resources.make_process(child, open_pidfd(child), loop)
        process.watch(loop, on_exit)
        return process

    async def prepare(self, order: TemplateOrder, reports: TemplateReports) -> TemplateProcess:
        if sys.platform != "linux":  # there is no subreaper and no /proc, which adoption and the safety checks need
            raise OSError(f"templates need Linux; this is {sys.platform}")
        loop = asyncio.get_running_loop()
        scratch = self._scratch_of(order.spec, order.template)
        scratch.mkdir(mode=0o700, exist_ok=True)
        if self._settings.user:
            self._settings.user.own(scratch)
        control, template_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read_end, write_end = os.pipe()
        boot_fd = document(_template_document(order, scratch, no_new_privs=self._settings.user is not None))
        try:
            # The id is the last argument and padded, so that a forked worker can write its own over it.
            options = ["--pool", order.spec.name, "--boot", str(boot_fd), "--template", str(template_end.fileno())]
            options += ["--worker", process_title.padded(order.template)]
            environment = self._environment(order.spec, process_title.padded(order.template), scratch)
            child = self._spawn(order.spec, options, environment, (template_end.fileno(), boot_fd), write_end)
        except BaseException:
            control.close()
            os.close(read_end)
            scratch.rmdir()
            raise
        finally:
            template_end.close()
            os.close(write_end)
            os.close(boot_fd)
        control.setblocking(False)
        output = Output(order.template, read_end, loop)
        instance = self._settings.instance
        template = TemplateProcess(
            order.template, child, open_pidfd(child), output, scratch, control=control, instance=instance
        )
        template.report_to(reports)
        return template

    async def fork(self, template: Template, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> WorkerProcess:
        assert isinstance(template, TemplateProcess)
        check_free_memory()
        return await template.fork(self._resources(order.spec, order.worker), order, on_exit)

    def _scratch_of(self, spec: PoolSpec, name: str) -> Path:
        """The directory for a process's temporary files: with a limit of paths, in one that its pool alone reaches."""
        self._make_directories()
        if paths_of(spec.sandbox) is None:
            return self._scratch / name
        folder = self._scratch / hashlib.sha256(spec.name.encode()).hexdigest()[:8]
        folder.mkdir(exist_ok=True)
        folder.chmod(stat.S_IMODE(self._scratch.stat().st_mode))
        self._folders.add(folder)
        return folder / name

    def _resources(self, spec: PoolSpec, worker: str) -> WorkerResources:
        # A short path: a socket's may have about a hundred bytes.
        path = str(self._sockets / str(next(self._numbers)))
        return WorkerResources(worker, path, self._scratch_of(spec, worker), self._settings.user)

    def _spawn(
        self, spec: PoolSpec, options: list[str], environment: dict[str, str], inherited: tuple[int, ...], output: int
    ) -> int:
        # The parent-death signal is sent when the *thread* that forked ends, so only the main thread starts processes.
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("workers are started on the broker's main thread only")
        # -P: the working directory must not come before the entries of the path.
        command = [spec.python or sys.executable, "-P", "-m", "snakepit.workers", *options]
        try:
            return self._start(command, environment, inherited, output)
        except PermissionError as error:
            if not self._settings.user:
                raise
            why = f"user {self._settings.user.uid} (SNAKEPIT['WORKER_USER']) cannot run {command[0]}: {error.strerror}"
            raise OSError(f"{why}; let it read the interpreter, its packages and the directories above them") from error

    def _start(self, command: list[str], environment: dict[str, str], inherited: tuple[int, ...], output: int) -> int:
        user = self._settings.user
        with without_capabilities() if user else contextlib.nullcontext():
            child = subprocess.Popen(
                command,
                stdin=self._devnull,
                stdout=output,
                stderr=output,
                pass_fds=inherited,
                start_new_session=True,
                env=environment,
                cwd=working_directory(self._settings.path),
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=user.groups if user else None,
            )
        child.returncode = 0  # ChildProcess reaps it; without this, Popen warns that the child was not waited for
        return child.pid

    def _environment(self, spec: PoolSpec, name: str, scratch: Path) -> dict[str, str]:
        settings = self._settings
        names = (*ENVIRONMENT, *settings.env_names)
        env = {key: value for key, value in settings.environ.items() if any(fnmatchcase(key, name) for name in names)}
        env |= dict.fromkeys(BLAS_VARIABLES, str(blas_threads(spec)))
        env |= {
            "PYTHONPATH": os.pathsep.join((str(self._package_link), *map(os.path.abspath, settings.path))),
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
            "MALLOC_ARENA_MAX": "2",
            # pandas imports pyarrow, whose allocator would start a thread; a template with a second thread cannot fork.
            "JE_ARROW_MALLOC_CONF": "background_thread:false",
            "TMPDIR": str(scratch),
            "SNAKEPIT_INSTANCE": settings.instance,
            "SNAKEPIT_POOL": spec.name,
            process_title.VARIABLE: name,
        }
        if settings.user:
            env["HOME"] = settings.user.home or str(scratch)
        return env | dict(spec.env)  # the pool's own variables override all others

    async def close(self) -> None:
        if self._devnull >= 0:
            os.close(self._devnull)
            self._devnull = -1
        (self._package_link / "snakepit").unlink(missing_ok=True)
        for directory in (*self._folders, self._sockets, self._scratch, self._package_link):
            with contextlib.suppress(OSError):
                directory.rmdir()
        if self._settings.user:
            with contextlib.suppress(OSError):
                self._place.rmdir()


def working_directory(path: Iterable[str]) -> str | None:
    """The first entry of the workers' path that is a directory; None if there is none: the broker's own."""
    return next((entry for entry in path if os.path.isdir(entry)), None)


def _template_document(order: TemplateOrder, scratch: Path, *, no_new_privs: bool) -> bytes:
    return json.dumps(
        {
            "protocol": PROTOCOL,
            "template": order.template,
            "pool": order.spec.name,
            "parent": os.getpid(),
            "adapter": order.adapter_path,
            "args": dict(order.spec.args),
            "always": order.spec.preload == Preload.ON,
            "no_new_privs": no_new_privs,
            "sandbox": sandbox_document(order.spec, scratch),
        }
    ).encode()

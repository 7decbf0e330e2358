"""The broker's side of a template: a process that forks workers, which become the broker's own children.

The order to fork goes over the control socket, with the new worker's descriptors. The worker answers on its handshake
socket with its pid, and gets its boot document there. While that socket is open its worker lives, so a pid that was
read from it, and opened as a pidfd before the socket's end, cannot be another process's.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

from snakepit.pools.adapters.processes.process import ChildProcess, Output, WorkerProcess
from snakepit.pools.adapters.processes.worker_resources import WorkerResources, boot_document
from snakepit.pools.broker.ports import Exit, ForkFailed, LaunchOrder, TemplateReports

FORK_SECONDS = 10.0  # for a fork, on a machine under load; a template that takes longer is killed
MAX_ORDERS = 16  # at the same time: each carries four descriptors, and the kernel limits those in flight
EXIT_SECONDS = 2.0  # for the exit handlers of a template that is not needed any more
MESSAGE = 4096

logger = logging.getLogger("snakepit.worker")


class TemplateProcess(ChildProcess):
    def __init__(
        self, name: str, pid: int, pidfd: int, output: Output, scratch: Path, *, control: socket.socket, instance: str
    ) -> None:
        super().__init__(name, pid, pidfd, output, scratch)
        self._control: socket.socket | None = control
        self._instance = instance
        self._loaded = False
        self._orders = asyncio.Semaphore(MAX_ORDERS)
        self._loop = asyncio.get_running_loop()

    def report_to(self, reports: TemplateReports) -> None:
        """Report how loading went, and the exit."""
        assert self._control is not None
        self._loop.add_reader(self._control.fileno(), self._read_report, reports)
        self.watch(self._loop, reports.ended)

    def _read_report(self, reports: TemplateReports) -> None:
        assert self._control is not None
        try:
            message = self._control.recv(MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        self._loop.remove_reader(self._control.fileno())  # it sends one message; its exit is read from its pidfd
        if not message:
            return
        facts = json.loads(message)
        if reason := facts.get("refused"):
            reports.refused(reason, facts["why"])
        else:
            self._loaded = True
            reports.loaded(facts["load_seconds"])

    def dismiss(self) -> None:
        """End it: by closing its control socket, or with SIGKILL while it still loads and does not read the socket."""
        if self.exited:
            return
        self._close_control()
        if self._loaded:
            self._loop.call_later(EXIT_SECONDS, self.kill)
        else:
            self.kill()

    def _close_control(self) -> None:
        if self._control is not None:
            self._loop.remove_reader(self._control.fileno())
            self._control.close()
            self._control = None

    def _ended(self) -> None:
        self._close_control()

    # Forking

    async def fork(
        self, resources: WorkerResources, order: LaunchOrder, on_exit: Callable[[Exit], None]
    ) -> WorkerProcess:
        """Fork a worker. Raises ForkFailed if that failed; all its resources are released then."""
        handshake, worker_end = socket.socketpair()
        try:
            with handshake:
                handshake.setblocking(False)
                async with self._orders:
                    with worker_end:
                        self._order(resources, worker_end)
                    resources.close_given()
                    pid = await self._pid(handshake)
                process = self._adopt(resources, pid, handshake)
                await self._configure(
                    process, handshake, boot_document(order, self._instance, scratch=resources.scratch)
                )
        except BaseException:
            resources.discard()
            raise
        process.watch(self._loop, on_exit)
        return process

    def _order(self, resources: WorkerResources, worker_end: socket.socket) -> None:
        if self._control is None:
            raise ForkFailed("the template has ended")
        message = json.dumps({"worker": resources.worker, "scratch": str(resources.scratch)}).encode()
        descriptors = [resources.listener.fileno(), resources.page_fd, resources.output, worker_end.fileno()]
        if resources.buffer_fd:
            descriptors.append(resources.buffer_fd)
        try:
            socket.send_fds(self._control, [message], descriptors)
        except OSError as error:
            raise ForkFailed(f"the template cannot be reached: {error}") from None

    async def _pid(self, handshake: socket.socket) -> int:
        try:
            async with asyncio.timeout(FORK_SECONDS):
                pid = await self._loop.sock_recv(handshake, 32)
        except TimeoutError:
            logger.warning("%s: killed, because it did not fork within %g s", self.name, FORK_SECONDS)
            self.kill()
            raise ForkFailed(f"the template did not fork within {FORK_SECONDS:g} s and was killed") from None
        except OSError:
            pid = b""
        if not pid:
            raise ForkFailed("the worker or its template ended during the fork")
        return int(pid)

    async def _configure(self, process: WorkerProcess, handshake: socket.socket, document: bytes) -> None:
        try:
            async with asyncio.timeout(FORK_SECONDS):
                await self._loop.sock_sendall(handshake, document)
        except TimeoutError:
            process.kill()  # it does not read its boot document
        except OSError:
            return  # it has ended meanwhile, which `watch` reports

    def _adopt(self, resources: WorkerResources, pid: int, handshake: socket.socket) -> WorkerProcess:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise ForkFailed("the worker ended right after the fork") from None
        if _is_open(handshake):
            return resources.make_process(pid, pidfd, self._loop)
        os.close(pidfd)  # it may be another process's by now; the worker is reaped as an orphan
        raise ForkFailed("the worker ended right after the fork")


def _is_open(handshake: socket.socket) -> bool:
    try:
        return bool(handshake.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False

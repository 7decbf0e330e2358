"""The broker's side of a template: a process that forks workers which become the broker's own children.

The order to fork travels over a socket that only the two of them hold, with the descriptors of the new worker.
The worker itself answers on its *cord*, a socket of its own, with its pid, and gets its boot document there in return.
As long as the cord is open its worker lives, so a pid that was read from it and opened as a pidfd before the cord ended
is no stranger's.
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

FORK_SECONDS = 10.0  # for a template to fork, on a machine under load; then it hangs and is ended
AT_ONCE = 16  # orders under way: each carries four descriptors, and the kernel bounds those that are in flight
GOODBYE_SECONDS = 2.0  # for a template that is not needed to run its exit handlers
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
        self._places = asyncio.Semaphore(AT_ONCE)
        self._loop = asyncio.get_running_loop()

    def attend(self, reports: TemplateReports) -> None:
        """Pass on what the template says of itself, and its end."""
        assert self._control is not None
        self._loop.add_reader(self._control.fileno(), self._hear, reports)
        self.watch(self._loop, reports.ended)

    def _hear(self, reports: TemplateReports) -> None:
        assert self._control is not None
        try:
            message = self._control.recv(MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        self._loop.remove_reader(self._control.fileno())  # it says one thing in its life; its pidfd tells its death
        if not message:
            return
        said = json.loads(message)
        if reason := said.get("refused"):
            reports.refused(reason, said["why"])
        else:
            self._loaded = True
            reports.loaded(said["load_seconds"])

    def dismiss(self) -> None:
        """It is not needed any more. One that still loads does not read its orders, and is ended at once."""
        if self.exited:
            return
        self._hang_up()
        if self._loaded:
            self._loop.call_later(GOODBYE_SECONDS, self.kill)
        else:
            self.kill()

    def _hang_up(self) -> None:
        if self._control is not None:
            self._loop.remove_reader(self._control.fileno())
            self._control.close()
            self._control = None

    def _ended(self) -> None:
        self._hang_up()

    # Forking

    async def fork(
        self, resources: WorkerResources, order: LaunchOrder, on_exit: Callable[[Exit], None]
    ) -> WorkerProcess:
        """A new worker in this resources. Raises ForkFailed if it did not come to life; nothing of it is left then."""
        ours, cord = socket.socketpair()
        try:
            with ours:
                ours.setblocking(False)
                async with self._places:
                    with cord:
                        self._order(resources, cord)
                    resources.given()
                    pid = await self._pid(ours)
                process = self._adopt(resources, pid, ours)
                await self._tell(process, ours, boot_document(order, self._instance))
        except BaseException:
            resources.discard()
            raise
        process.watch(self._loop, on_exit)
        return process

    def _order(self, resources: WorkerResources, cord: socket.socket) -> None:
        if self._control is None:
            raise ForkFailed("its template has ended")
        message = json.dumps({"worker": resources.worker, "scratch": str(resources.scratch)}).encode()
        belongings = [resources.listener.fileno(), resources.box_fd, resources.output, cord.fileno()]
        try:
            socket.send_fds(self._control, [message], belongings)
        except OSError as error:
            raise ForkFailed(f"its template cannot be reached: {error}") from None

    async def _pid(self, cord: socket.socket) -> int:
        try:
            async with asyncio.timeout(FORK_SECONDS):
                said = await self._loop.sock_recv(cord, 32)
        except TimeoutError:
            logger.warning("%s: it did not fork within %g s and is ended", self.name, FORK_SECONDS)
            self.kill()
            raise ForkFailed(f"its template did not fork within {FORK_SECONDS:g} s") from None
        except OSError:
            said = b""
        if not said:
            raise ForkFailed("it ended before it was born, or its template did")
        return int(said)

    async def _tell(self, process: WorkerProcess, cord: socket.socket, document: bytes) -> None:
        try:
            async with asyncio.timeout(FORK_SECONDS):
                await self._loop.sock_sendall(cord, document)
        except TimeoutError:
            process.kill()  # it does not read what it is to be
        except OSError:
            return  # it died meanwhile: whoever watches it is told

    def _adopt(self, resources: WorkerResources, pid: int, cord: socket.socket) -> WorkerProcess:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise ForkFailed("it ended as it was born") from None
        if _is_open(cord):
            return resources.hand_over(pid, pidfd, self._loop)
        os.close(pidfd)  # perhaps a stranger's by now; what became of the worker is reaped with the strays
        raise ForkFailed("it ended as it was born")


def _is_open(cord: socket.socket) -> bool:
    try:
        return bool(cord.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False

"""A child process of the broker, a worker or a template: identity, output, memory, exit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from snakepit.pools.adapters.processes import stacks
from snakepit.pools.adapters.processes.buffer_memory import unseen_kb
from snakepit.pools.adapters.processes.memory_group import MemoryGroup
from snakepit.pools.adapters.processes.vitals import vitals_of
from snakepit.pools.broker.errors import StacksUnavailable
from snakepit.pools.broker.ports import Buffers, Exit
from snakepit.pools.broker.status import ThreadStack
from snakepit.workers.process.shared_page import BegunRecord, SharedPage
from snakepit.workers.transport import buffer_inbox

LINE_LIMIT = 16 * 1024  # bytes; longer lines are cut
LINES_KEPT = 200
LINES_A_SECOND = 100  # that are logged; further ones are counted

logger = logging.getLogger("snakepit.worker")


class Output:
    """The lines that a process prints. The pipe is always read: if it were full, the process would block in `write`."""

    def __init__(self, worker: str, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._worker = worker
        self._fd = fd
        self._loop = loop
        self._rest = b""
        self._skipping = False
        self._second = 0
        self._in_second = 0
        self._unlogged = 0
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 64 * 1024)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self._skipping:  # the rest of a line whose beginning was kept
                self._skipping = False
            else:
                self._keep(line)
        if len(self._rest) > LINE_LIMIT:
            if not self._skipping:
                self._keep(self._rest)
            self._skipping, self._rest = True, b""

    def _keep(self, raw: bytes) -> None:
        # Control characters could forge log lines or control an operator's terminal.
        text = raw[:LINE_LIMIT].decode("utf-8", "backslashreplace")
        text = "".join(char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in text)
        self.lines.append(text)
        second = int(self._loop.time())
        if second != self._second:
            if self._unlogged:
                logger.warning("%s: %d more lines were not logged", self._worker, self._unlogged)
            self._second, self._in_second, self._unlogged = second, 0, 0
        self._in_second += 1
        if self._in_second <= LINES_A_SECOND:
            logger.info("%s: %s", self._worker, text, extra={"worker": self._worker})
        else:
            self._unlogged += 1

    def drain(self) -> None:
        """Read what an ended process left in the pipe, at most the pipe's size."""
        for _ in range(4):
            if self._fd >= 0:
                self._read()

    def close(self) -> None:
        if self._fd >= 0:
            if self._rest and not self._skipping:
                self._keep(self._rest)
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


class ChildProcess:
    """A child of the broker, and the leader of its own process group.

    Signals go through a pidfd, which never refers to another process that gets the pid later.
    """

    def __init__(self, name: str, pid: int, pidfd: int, output: Output, scratch: Path) -> None:
        self.name = name
        self.pid = pid
        self.exited = False
        self._pidfd = pidfd
        self._output = output
        self._scratch = scratch
        self._vitals = vitals_of(pid)
        self._memory_group = MemoryGroup(pid)
        self._kill_sent = False
        self._on_exit: Callable[[Exit], None] = lambda exit: None

    def watch(self, loop: asyncio.AbstractEventLoop, on_exit: Callable[[Exit], None]) -> None:
        """Call `on_exit` on the loop once the process has ended and is reaped."""
        self._on_exit = on_exit
        if self._pidfd >= 0:
            loop.add_reader(self._pidfd, self._reap, loop)
        else:  # not Linux
            wait = threading.Thread(target=self._wait, args=(loop,), name=f"wait {self.name}", daemon=True)
            wait.start()

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        loop.call_soon_threadsafe(self._reap, loop)

    def _killed(self, number: int) -> Exit:
        by_kernel = number == signal.SIGKILL and not self._kill_sent and self._memory_group.explains_kill()
        return Exit(signal=number, out_of_memory=by_kernel)

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        self._memory_group.sample()
        try:
            done = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG)
        except ChildProcessError:  # reaped elsewhere: it has ended, with an unknown status
            done = None
            exit = Exit()
        else:
            if done is None:
                return
            code = done.si_code == os.CLD_EXITED
            exit = Exit(code=done.si_status) if code else self._killed(done.si_status)
        self.exited = True
        if self._pidfd >= 0:
            loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self._kill_group()  # its children must not outlive it
        self._output.drain()
        self._output.close()
        self._remove_scratch(loop)
        self._ended()
        self._on_exit(exit)

    def _remove_scratch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Remove its temporary directory. Many files take a while, and calls must not wait for that."""
        try:
            os.rmdir(self._scratch)  # mostly it is empty
        except FileNotFoundError:
            return
        except OSError:
            loop.run_in_executor(None, partial(shutil.rmtree, self._scratch, ignore_errors=True))

    def _ended(self) -> None:
        """Called when the process is reaped, before `on_exit`."""

    def kill(self) -> None:
        if self.exited:
            return
        self._kill_sent = True
        self._kill_group()
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGKILL)

    def _kill_group(self) -> None:
        # The group's id stays in use while any member lives, so it cannot refer to another group. When all members
        # are gone, the kernel answers ESRCH.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def output(self) -> Sequence[str]:
        return list(self._output.lines)

    def memory_mb(self) -> float | None:
        if self.exited:
            return None
        self._memory_group.sample()
        return self._vitals.memory_mb()

    def cpu_seconds(self) -> float | None:
        if self.exited:
            return None
        return self._vitals.cpu_seconds()


class WorkerProcess(ChildProcess):
    """A worker's process, with the socket that it listens on and its shared page."""

    def __init__(
        self,
        name: str,
        pid: int,
        pidfd: int,
        output: Output,
        scratch: Path,
        *,
        socket_path: str,
        page: SharedPage,
    ) -> None:
        super().__init__(name, pid, pidfd, output, scratch)
        self.socket_path = socket_path
        self.buffers: socket.socket | None = None  # where descriptors go to the worker
        self._page = page
        self._may_have_buffers = False
        self._record = BegunRecord()  # the page's numbers after the exit, when the page is closed
        self._reading_stacks = asyncio.Lock()

    def _ended(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self.socket_path)
        self._record = self._page.record()
        self._page.close()
        if self.buffers:
            self.buffers.close()

    def last_begun(self) -> int:
        return self._record.begun if self.exited else self._page.last_begun

    def has_begun(self, sequence: int) -> bool:
        return (self._record if self.exited else self._page.record()).has_begun(sequence)

    def revoke(self, first: int, last: int) -> None:
        if not self.exited:
            self._page.revoke(first, last)

    def pass_buffers(self, sequence: int, parts: Buffers | bytes | memoryview) -> bool:
        if self.buffers is None or self.exited:
            return False
        if isinstance(parts, bytes | memoryview):
            return buffer_inbox.send(self.buffers, sequence, data=parts)
        self._may_have_buffers = True
        return buffer_inbox.send(self.buffers, sequence, parts.descriptors)

    def memory_mb(self) -> float | None:
        """As of every process, and the large arguments that it holds and has not read."""
        found = super().memory_mb()
        if found is None or not self._may_have_buffers:  # reading its maps takes a millisecond
            return found
        self._may_have_buffers = False  # before the maps are read: arguments may be passed meanwhile
        unseen = unseen_kb(self.pid)
        self._may_have_buffers |= unseen > 0
        return round(found + unseen / 1024, 1)

    async def stacks(self) -> tuple[ThreadStack, ...]:
        async with self._reading_stacks:  # all answers go to one file
            if self.exited:
                raise StacksUnavailable("The worker has just ended.")
            return await stacks.read(self.pid, self._page, lambda: not self.exited)


def open_pidfd(pid: int) -> int:
    """-1 where the system has none (not Linux)."""
    return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1

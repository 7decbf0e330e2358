"""Workers that are threads of this process: a launcher, and links that pass messages in memory.

    Broker ─▶ ThreadLauncher ─▶ WorkerThread ─▶ the worker's own program: load, Hello, calls, teardown
       └────▶ MemoryLink ◀────▶ MemoryService       the same messages as on a socket

A thread cannot be killed. A worker that the broker kills is cut off: its calls are cancelled, its reports are dropped,
and its thread ends when its command returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from snakepit.pools.adapters.grpc.link import GrpcLink
from snakepit.pools.broker.errors import StacksUnavailable
from snakepit.pools.broker.ports import (
    Buffers,
    Exit,
    LaunchOrder,
    Template,
    TemplateOrder,
    TemplateReports,
    WorkerReports,
)
from snakepit.pools.broker.spec import PoolSpec
from snakepit.pools.broker.status import ThreadStack
from snakepit.testing.fakes import Fakes
from snakepit.testing.loading import LazyAdapter, Loading
from snakepit.testing.passing import MemoryInbox, MemoryReply, Passing
from snakepit.workers.adapter import Adapter
from snakepit.workers.process import vitals
from snakepit.workers.process.boot import Boot
from snakepit.workers.process.shared_page import BegunRecord, SharedPage, make
from snakepit.workers.process.worker import WorkerProgram
from snakepit.workers.report import Outbox, VitalsReport
from snakepit.workers.runtime.runtime import CallRuntime
from snakepit.workers.schema.commands import CommandSpec
from snakepit.workers.transport.buffer_inbox import BufferInbox
from snakepit.workers.transport.message_stream import MessageStream
from snakepit.workers.transport.server import Orders, carry_out, to_wire
from snakepit.workers.wire import worker_pb2 as pb

SIGKILL = 9


class MemoryService:
    """The worker's end of a link, as its program uses it. The broker's end calls `send`."""

    waiting = 0  # bytes that are not written yet: none ever

    def __init__(self, loop: asyncio.AbstractEventLoop, max_payload: int, probe: Callable[[int], VitalsReport]) -> None:
        self.loop = loop
        self.lost = False
        self.outbox = Outbox(self._wake)
        self._max_payload = max_payload
        self._probe = probe
        self._orders: Orders | None = None
        self._receive: Callable[[bytes], None] | None = None
        self.inbox = MemoryInbox()

    # The worker's program, on its thread

    def start(self, orders: Orders, on_lost: Callable[[], None]) -> None:
        self._orders = orders

    def finish(self) -> None:
        """Nothing to do: the reports are on the loop, before the end of the thread."""

    def _wake(self, last: bool) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the test has ended
            self.loop.call_soon_threadsafe(self._send_waiting)

    # The broker, on the loop

    def open(self, receive: Callable[[bytes], None]) -> None:
        self._receive = receive
        self._send_waiting()

    def send(self, message: bytes) -> None:
        assert self._orders is not None
        for order in pb.Orders.FromString(message).orders:
            carry_out(order, self._orders, self._max_payload, self.outbox, self._probe, cast(BufferInbox, self.inbox))

    def cut(self) -> None:
        """Drop what the worker reports from now on."""
        self._receive = None
        self.outbox.close()

    def _send_waiting(self) -> None:
        while self._receive and (batch := self.outbox.take()):
            self._receive(to_wire(batch))


class ThreadProgram(WorkerProgram):
    """A worker's program on a thread. Only what belongs to a process is different."""

    def __init__(
        self, boot: Boot, page: SharedPage, loop: asyncio.AbstractEventLoop, loading: Loading, passing: Passing
    ) -> None:
        self._boot = boot
        self._watch = vitals.GilWatch()  # not installed: it would watch the imports of the test as well
        self._forked = False
        self._gil_reported = False
        self._preloaded = None
        self._loading = loading
        self.service = MemoryService(loop, boot.max_payload, self.probe)
        self._link: Any = self.service
        self._direct_reply = MemoryReply(boot.worker, passing)
        self._runtime = CallRuntime(self.service.outbox, page, slots=boot.slots, direct_reply=self._direct_reply)
        self.service.start(self._runtime, lambda: None)  # orders may come before the thread runs

    def _load(self) -> tuple[Adapter, Mapping[str, CommandSpec]]:
        adapter: LazyAdapter = self._loading.adapter(self._boot, self._complete)
        # Its commands are bound by name, so an object with these names serves as the adapter.
        return cast(Adapter, adapter), adapter.commands

    def _tear_down(self, adapter: Adapter) -> None:
        super()._tear_down(adapter)
        # Django keeps a connection for each thread; an open one keeps the test database from being deleted.
        if "django.db" in sys.modules:
            sys.modules["django.db"].connections.close_all()

    def _guard_forks(self) -> None:
        """Nothing to do: a hook for forks stays for the rest of this process, and would keep the worker alive."""

    def _parallelism(self, slots: int, cores: int, gil: bool) -> float:
        return 0.0  # measuring takes longer than most tests

    def abandon(self) -> None:
        """Cancel all calls and let the thread end."""
        self._runtime.abandon()


class WorkerThread:
    """One worker, with the interface of its process in the broker."""

    def __init__(
        self, order: LaunchOrder, path: str, loading: Loading, passing: Passing, on_exit: Callable[[Exit], None]
    ) -> None:
        self.pid = os.getpid()
        self.socket_path = path
        self.gone = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._on_exit = on_exit
        self._record: BegunRecord | None = None  # the page's numbers when the worker has ended
        descriptor = make()
        self._page = SharedPage(descriptor)
        os.close(descriptor)
        self._program = ThreadProgram(boot_of(order), self._page, self._loop, loading, passing)
        self.service = self._program.service
        self._thread = threading.Thread(target=self._run, name=f"snakepit-{order.worker}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        code = self._program.run()
        with contextlib.suppress(RuntimeError):  # the loop is closed: the test has ended
            self._loop.call_soon_threadsafe(self._returned, code)

    def _returned(self, code: int) -> None:
        self._end(Exit(code=code))
        self._page.close()

    def _end(self, exit: Exit) -> None:
        if self._record is None:
            self._record = self._page.record()
            self.gone.set()
            self._loop.call_soon(self._on_exit, exit)

    def kill(self) -> None:
        if self._record is None:
            self.service.cut()
            self._program.abandon()
            self._end(Exit(signal=SIGKILL))

    def last_begun(self) -> int:
        return (self._record or self._page.record()).begun

    def has_begun(self, sequence: int) -> bool:
        return (self._record or self._page.record()).has_begun(sequence)

    def revoke(self, first: int, last: int) -> None:
        if self._record is None:
            self._page.revoke(first, last)

    def pass_buffers(self, sequence: int, parts: Buffers | bytes | memoryview) -> bool:
        if isinstance(parts, bytes | memoryview):
            return False
        self.service.inbox.put(sequence, parts.descriptors)
        return True

    def output(self) -> Sequence[str]:
        return ()  # it prints where the test prints

    def memory_mb(self) -> float | None:
        return None  # it is that of the test

    def cpu_seconds(self) -> float | None:
        return None

    async def stacks(self) -> tuple[ThreadStack, ...]:
        raise StacksUnavailable("A worker of a test is a thread of the test's own process.")


class MemoryLink(GrpcLink):
    """The broker's end of a link. Batches and messages are those of the socket's link."""

    def __init__(self, worker: WorkerThread, reports: WorkerReports) -> None:
        self._worker = worker
        super().__init__(worker.socket_path, reports)

    async def _run(self) -> None:
        try:
            self._worker.service.open(self._receive)
            self._batch.open(cast(MessageStream, self._worker.service))
            await self._worker.gone.wait()
        finally:
            if not self._closed:
                self._closed = True
                self._reports.lost()


class ThreadLauncher:
    """Starts workers as threads, and links them."""

    def __init__(self, fakes: Fakes, classes: Mapping[str, type[Adapter]], passing: Passing) -> None:
        self._loading = Loading(fakes, classes)
        self._passing = passing
        self._numbers = itertools.count(1)
        self._workers: dict[str, WorkerThread] = {}

    async def launch(self, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> WorkerThread:
        path = f"in memory: {next(self._numbers)}"

        def ended(exit: Exit) -> None:
            self._workers.pop(path, None)
            on_exit(exit)

        worker = self._workers[path] = WorkerThread(order, path, self._loading, self._passing, ended)
        return worker

    async def prepare(self, order: TemplateOrder, reports: TemplateReports) -> Template:
        raise OSError("the workers of a test are threads and have no template")

    async def fork(self, template: Template, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> WorkerThread:
        raise OSError("the workers of a test are threads and have no template")

    async def close(self) -> None: ...

    def link(self, socket_path: str, reports: WorkerReports) -> MemoryLink:
        return MemoryLink(self._workers[socket_path], reports)


def boot_of(order: LaunchOrder) -> Boot:
    spec: PoolSpec = order.spec
    return Boot(
        worker=order.worker,
        pool=spec.name,
        adapter=order.adapter_path,
        parent=os.getpid(),
        listen_fd=0,
        shared_page_fd=0,
        profile=str(spec.profile),
        threads=spec.threads,
        args=spec.args,
        max_payload=spec.max_payload,
        thread_checks=spec.thread_checks,
    )

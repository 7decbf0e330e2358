"""A broker of the test's own process: the real broker core on a thread, whose workers are threads.

    client ─▶ LocalBroker.connect ─▶ MemoryConnection ─▶ Broker ─▶ ThreadLauncher ─▶ adapters

A pool starts when it is first used. The broker ends with the test.
"""

from __future__ import annotations

import asyncio
import os
import platform
import random
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar, cast

from snakepit.pools.adapters.grpc.buffer_intake import BufferIntake
from snakepit.pools.adapters.grpc.service import BrokerService
from snakepit.pools.adapters.records.metrics import Metrics
from snakepit.pools.adapters.records.recent_events import RecentEvents
from snakepit.pools.broker.broker import Broker
from snakepit.pools.broker.errors import BrokerError, BrokerUnreachable
from snakepit.pools.broker.events import Event, Kind
from snakepit.pools.broker.handle import CallHandle
from snakepit.pools.broker.messages import Reply, Request, Timing
from snakepit.pools.broker.node import NodeFacts
from snakepit.pools.broker.ports import Definition, Loaded, Ports
from snakepit.pools.broker.spec import PoolSpec, Preload
from snakepit.pools.broker.status import BrokerStatus
from snakepit.testing.calls import Calls
from snakepit.testing.connection import MemoryConnection
from snakepit.testing.definitions import PoolDefinitions
from snakepit.testing.fakes import Fakes
from snakepit.testing.passing import Passing
from snakepit.testing.workers import ThreadLauncher

T = TypeVar("T")

START_SECONDS = 60.0  # for the broker, and for the first worker of a pool
STOP_SECONDS = 0.5  # for running commands; then their threads are left behind
CANCEL_GRACE = 0.1  # seconds: a thread is not killed, so waiting longer for a command is of no use
SETTLED = frozenset({Kind.WORKER_STARTED, Kind.WORKER_DIED, Kind.WORKER_KILLED, Kind.POOL_FAILED})


class LocalBroker:
    """Starts at its first call; `stop` ends it."""

    def __init__(self, definitions: PoolDefinitions, fakes: Fakes, calls: Calls, workers: int) -> None:
        self.unreachable = False
        self._definitions = definitions
        self._fakes = fakes
        self._calls = calls
        self._workers = workers
        self._lock = threading.Lock()
        self._opened: dict[str, Definition] = {}
        self._settled: dict[str, threading.Event] = {}  # by pool: its first worker has started, or failed to
        self._thread: threading.Thread | None = None
        self._up = threading.Event()
        self._ended = False
        self.passing = Passing()

    def __str__(self) -> str:
        return "the pools of this test"

    # Any thread

    def prepare(self, pool: str) -> None:
        """Start a pool that is used for the first time, and wait for its first worker."""
        if self.unreachable:
            return  # the calls get the error
        settled = self._settled.get(pool)
        if settled is None:
            definition = self._definitions.find(pool)
            if definition is None or self._ended:
                return  # the broker refuses the call
            with self._lock:
                if pool not in self._opened:
                    self._settled[pool] = threading.Event()
                    self._opened[pool] = replace(definition, spec=in_process(definition.spec, self._workers))
            self._start()
            self._run(self.broker.apply()).result(START_SECONDS)
            settled = self._settled[pool]
        settled.wait(START_SECONDS)

    def prepare_all(self) -> None:
        """Start every pool: a status names them all."""
        for pool in self._definitions.names():
            self.prepare(pool)

    def refusal(self) -> BrokerUnreachable | None:
        if self.unreachable:
            return BrokerUnreachable("The broker is unreachable in this test.", outcome="not_started")
        return None

    def error_of_call(self, request: Request) -> BrokerError | None:
        """Note a call, and return the error that the test gave for it."""
        if refusal := self.refusal():
            return refusal
        self._calls.add(request)
        return self._fakes.take_failure(request.pool, request.command)

    def stop(self) -> None:
        """End the broker, its workers and its threads. A command that does not return is left behind."""
        self._ended = True
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self.loop.call_soon_threadsafe(self._stopping.set)
            thread.join(START_SECONDS)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._ended:
                self._thread = threading.Thread(target=self._serve, name="snakepit-broker", daemon=True)
                self._thread.start()
        if not self._up.wait(START_SECONDS):
            raise BrokerUnreachable(f"The broker of this test did not start within {START_SECONDS:g} s.")

    # The client's loop

    async def connect(self, on_message: Callable[[bytes], None], use: Callable[[Any], Any]) -> None:
        if self._ended:
            raise BrokerUnreachable("The pools of this test have ended.", outcome="not_started")
        await asyncio.to_thread(self._start)
        connection = MemoryConnection(self, on_message)
        try:
            await connection.open()
            await use(connection)
        finally:
            connection.reply_socket.close()

    # The broker's thread

    def _serve(self) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        launcher = ThreadLauncher(self._fakes, self._definitions.classes, self.passing)
        metrics = Metrics(_Recorder(self._record))
        recent = RecentEvents(metrics, metrics)
        facts = NodeFacts("test", "0", os.getpid(), str(self), platform.python_version(), "test")
        ports = Ports(launcher, launcher, _Clock(), _Definitions(self._opened), recent, recent)
        self.broker = _RecordingBroker(facts, ports, self, self._definitions.names)
        self.service = BrokerService(self.broker, recent, metrics.text)
        self.service.intake = cast(BufferIntake, self.passing)
        metrics.expose(self.broker.snapshot)
        await self.broker.start()
        self._up.set()
        await self._stopping.wait()
        await self.broker.stop(STOP_SECONDS)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    def _record(self, event: Event) -> None:
        if event.kind in SETTLED and (settled := self._settled.get(event.pool)):
            settled.set()


class _RecordingBroker(Broker):
    """Keeps the calls that came, and fails those for which the test gave an error."""

    def __init__(self, facts: NodeFacts, ports: Ports, local: LocalBroker, names: Callable[[], list[str]]) -> None:
        super().__init__(facts, ports, random.Random())
        self._names = names
        self._local = local

    def pool_names(self) -> list[str]:
        return sorted({*self._names(), *self.runners})

    def submit_alike(self, calls: Sequence[tuple[Request, Reply]]) -> list[CallHandle]:
        handles: list[CallHandle] = []
        for request, reply in calls:
            error = self._local.error_of_call(request)
            if error is not None:
                reply.failed(error, Timing())
                handles.append(CallHandle(None, 0))
            else:
                handles += super().submit_alike(((request, reply),))
        return handles


class _Clock:
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class _Definitions:
    """The pools that the test has used so far."""

    def __init__(self, opened: Mapping[str, Definition]) -> None:
        self._opened = opened

    def load(self) -> Loaded:
        return Loaded(tuple(self._opened.values()))


class _Recorder:
    """Passes events on and keeps none."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event

    def start(self) -> None: ...

    def record(self, at: float, event: Event) -> None:
        self._on_event(event)

    def observe(self, status: BrokerStatus) -> None: ...

    def stop(self) -> None: ...


def in_process(spec: PoolSpec, workers: int) -> PoolSpec:
    """The definition for workers that are threads: what can only hold for processes is off."""
    return replace(
        spec,
        size=min(spec.size, workers),
        python="",
        preload=Preload.OFF,
        memory_soft_mb=None,
        memory_hard_mb=None,
        thread_checks=False,
        startup_delay=0.0,
        boot_budget=1,  # the first failed start is the result: the calls get its reason
        cancel_grace=min(spec.cancel_grace, CANCEL_GRACE),
    )

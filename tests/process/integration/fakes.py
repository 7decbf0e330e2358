"""A client that answers from a script: the methods and errors of the real Client, without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from snakepit.pools.broker.errors import BrokerError, BrokerUnreachable, CommandUnknown, PoolUnknown
from snakepit.pools.broker.node_status import ListenerStatus
from snakepit.pools.broker.status import (
    BrokerStatus,
    CommandInfo,
    PlannedWorker,
    PoolHistograms,
    PoolStatus,
    RecordedEvent,
    RecyclePlan,
    RunningCall,
    StackFrame,
    SweepResult,
    ThreadStack,
    WorkerDump,
    WorkerStatus,
)
from snakepit.pools.client import Answer, Chunk, Log, Progress
from snakepit.pools.client.encoded import Encoded
from snakepit.workers.schema import typed
from tests.statuses import pool, status, worker

POOL = pool(
    "digits",
    size=2,
    ready=2,
    busy=1,
    slots=2,
    free=1,
    waiting=3,
    oldest_wait=0.5,
    finished=10,
    memory_mb=80.5,
    buffer_bytes=8 * 2**20,
)
WORKER = worker(
    "digits-1", pid=7, load=1, served=8, memory_mb=40.0, output=("a line",),
    calls=(RunningCall("call-1", "classify", 0.2, 59.8),),
)  # fmt: skip
PLANNED = PlannedWorker(
    id="digits-1", state="ready", reason="", detail="", age=12.5, served=8, load=1, seconds_until_ttl=47.5,
    calls_until_max=None, in_turn=1, effect="is replaced in its turn", seconds_until_successor=45.5,
)  # fmt: skip
DUMP = WorkerDump(
    worker="digits-1", pool="digits", pid=7, at=1e9, calls=(RunningCall("c-1", "classify", 1.5, 58.5),),
    threads=(ThreadStack(7, "python", "R", 2.5, (StackFrame("digits.py", 12, "classify"),)),),
)  # fmt: skip
COMMAND = CommandInfo(
    "classify", "Which digit it is.", idempotent=True,
    schema='{"type": "object", "properties": {"pixels": {"type": "array"}}}',
    result_schema='{"$ref": "#/$defs/Digit", "$defs": {"Digit": {"type": "integer", "enum": [7, 8]}}}',
)  # fmt: skip


class FakeStream:
    """Events from a list; an exception in it is raised, a coroutine function is awaited first."""

    def __init__(self, script: list[Any]) -> None:
        self._script = iter(script)
        self.closed = asyncio.Event()

    def __aiter__(self) -> FakeStream:
        return self

    async def __anext__(self) -> Any:
        for event in self._script:
            if isinstance(event, BaseException):
                raise event
            if callable(event):
                await event()
                continue
            return event
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed.set()


class FakeClient:
    """`error` is raised by everything; `answers` maps a command to its value or to a function of its arguments."""

    def __init__(self) -> None:
        self.error: BrokerError | None = None
        self.calls: list[tuple[str, str, dict[str, Any], float | None, int]] = []
        self.keys: list[str] = []  # the affinity of each call
        self.orders: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {"classify": 7, "echo": lambda arguments: arguments}
        self.script: list[Any] = [
            Progress(0.5, "half"),
            Log("a line"),
            Chunk({"n": 1}),
            Chunk({"n": 2}),
            self._answer(None),
        ]
        self.streams: list[FakeStream] = []
        self.events: list[RecordedEvent] = []
        self.histograms: dict[str, PoolHistograms] = {}
        self.pools: list[PoolStatus] = [POOL]
        self.workers: list[WorkerStatus] = [WORKER]
        self.drained: tuple[str, str] | None = None
        self.listeners: tuple[ListenerStatus, ...] = ()
        self.patience: list[float] = []  # seconds that each question may take
        self.known: list[CommandInfo] = [COMMAND]

    def change_pool(self, **changes: Any) -> None:
        """The first pool is reported with these values from now on."""
        self.pools[0] = replace(self.pools[0], **changes)

    def change_worker(self, **changes: Any) -> None:
        self.workers[0] = replace(self.workers[0], **changes)

    @staticmethod
    def _answer(value: Any) -> Answer:
        return Answer(value, "call-1", "digits-1", 0.0015, 0.25)

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error

    async def aexecute(
        self, pool: str, command: str, arguments: Mapping[str, Any], /, *,
        timeout: float | None, priority: int, affinity: str = "",
    ) -> Answer:  # fmt: skip
        self._raise()
        self.keys.append(affinity)
        self.calls.append((pool, command, dict(arguments), timeout, priority))
        if pool != "digits":
            raise PoolUnknown(f"No pool is named {pool!r}.")
        if command not in self.answers:
            raise CommandUnknown(f"The pool digits has no command {command!r}.")
        value = self.answers[command]
        return self._answer(value(arguments) if isinstance(value, Callable) else value)  # type: ignore[arg-type]

    async def aexecute_encoded(
        self, pool: str, command: str, arguments: Mapping[str, Any], /, *,
        timeout: float | None, priority: int, affinity: str = "",
    ) -> Answer:  # fmt: skip
        answer = await self.aexecute(pool, command, arguments, timeout=timeout, priority=priority, affinity=affinity)
        return replace(answer, value=Encoded.parse(typed.encode(answer.value, 2**20)))

    def aevents(
        self, pool: str, command: str, arguments: Mapping[str, Any], /, *,
        timeout: float | None, priority: int, affinity: str = "",
    ) -> FakeStream:  # fmt: skip
        self.keys.append(affinity)
        self.calls.append((pool, command, dict(arguments), timeout, priority))
        stream = FakeStream([self.error] if self.error else self.script)
        self.streams.append(stream)
        return stream

    async def ametrics(self, timeout: float) -> str:
        return "near 1\n"

    def status(self, pool: str = "", timeout: float = 10.0) -> BrokerStatus:
        self.patience.append(timeout)
        self._raise()
        actor, reason = self.drained or ("", "")
        drained = bool(self.drained)
        return status(
            [one for one in self.pools if pool in ("", one.name)], self.workers, draining=drained,
            drain_since=1e9 if drained else 0.0, drain_actor=actor, drain_reason=reason, listeners=self.listeners,
        )  # fmt: skip

    async def astatus(self, pool: str = "", timeout: float = 10.0) -> BrokerStatus:
        return self.status(pool, timeout)

    async def ameasured(self, pool: str = "", timeout: float = 10.0) -> BrokerStatus:
        return replace(self.status(pool, timeout), histograms=self.histograms)

    def watch(self, after: int = 0, timeout: float = 10.0) -> BrokerStatus:
        events = tuple(event for event in self.events if event.seq > after)
        return replace(self.status(timeout=timeout), events=events, histograms=self.histograms)

    async def awatch(self, after: int = 0, timeout: float = 10.0) -> BrokerStatus:
        return self.watch(after, timeout)

    async def acommands(self, pool: str, timeout: float = 10.0) -> tuple[CommandInfo, ...]:
        return self.commands(pool, timeout)

    def commands(self, pool: str, timeout: float = 10.0) -> tuple[CommandInfo, ...]:
        self.patience.append(timeout)
        self._raise()
        return tuple(self.known)

    def recycle(self, pool: str, worker: str = "", actor: str = "", reason: str = "") -> int:
        self._raise()
        self.orders.append((pool, worker, actor, reason))
        return 2

    def kill(self, worker: str, actor: str = "", reason: str = "") -> None:
        self._raise()
        self.orders.append((worker, "kill", actor, reason))

    def dump(self, worker: str, actor: str = "", reason: str = "") -> WorkerDump:
        self._raise()
        self.orders.append((worker, "dump", actor, reason))
        return replace(DUMP, worker=worker)

    async def adump(self, worker: str, actor: str = "", reason: str = "") -> WorkerDump:
        return self.dump(worker, actor, reason)

    def drain(self, actor: str = "", reason: str = "") -> None:
        self._raise()
        self.orders.append(("node-1", "drain", actor, reason))
        self.drained = (actor, reason)

    def resume(self, actor: str = "", reason: str = "") -> None:
        self._raise()
        self.orders.append(("node-1", "resume", actor, reason))
        self.drained = None

    def plan(self, pool: str, worker: str = "", timeout: float = 10.0) -> RecyclePlan:
        self.patience.append(timeout)
        self._raise()
        workers = (PLANNED, replace(PLANNED, id="digits-2", load=0, in_turn=2))
        chosen = tuple(one for one in workers if worker in ("", one.id))
        return RecyclePlan(pool, chosen, at_once=1, max_surge=1, max_unavailable=0, load_seconds=2.0)

    async def aplan(self, pool: str, worker: str = "", timeout: float = 10.0) -> RecyclePlan:
        return self.plan(pool, worker, timeout)

    def apply(self, pool: str = "", action: str = "", actor: str = "", reason: str = "") -> int:
        self._raise()
        self.orders.append((pool, action, actor, reason))
        return 1

    async def arecycle(self, pool: str, worker: str = "", actor: str = "", reason: str = "") -> int:
        return self.recycle(pool, worker, actor, reason)

    def sweep(self, source: str, interval: float) -> SweepResult:
        self._raise()
        self.orders.append((source, interval))
        return SweepResult(pools=1, workers=2, planned=0)


def unreachable() -> BrokerUnreachable:
    return BrokerUnreachable("No broker answers at /run/broker.sock.", outcome="not_started")

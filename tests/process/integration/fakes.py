"""A client that answers from a script: the methods and errors of the real Client, without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from snakepit.pools.broker.errors import BrokerError, BrokerUnreachable, CommandUnknown, PoolUnknown
from snakepit.pools.client import Answer, Chunk, Log, Progress

POOL = {
    "name": "digits", "profile": "process", "adapter": "digits", "state": "ready", "reason": "", "size": 2, "ready": 2,
    "busy": 1, "slots": 2, "free": 1, "lost": 0, "waiting": 3, "oldest_wait": 0.5, "queue_limit": 1000, "generation": 1,
    "finished": 10, "failed": 0, "refused": 0, "retried": 0, "recycled": 0, "died": 0, "memory_mb": 80.5,
    "warnings": [], "interpreter": "", "gil": "", "gil_culprit": "", "parallelism": 0.0, "parallel": "",
    "races": [],
}  # fmt: skip
WORKER = {"id": "digits-1", "pool": "digits", "pid": 7, "state": "ready", "load": 1, "capacity": 1, "memory_mb": 40.0,
          "reason": "", "lost": 0, "served": 8, "gil": "on", "gil_culprit": "", "generation": 1, "started_at": 1e9,
          "load_seconds": 0.5, "python": "3.11.9", "parallelism": 0.0, "output": ["a line"],
          "calls": [{"id": "call-1", "command": "classify", "seconds": 0.2, "remaining": 59.8}]}  # fmt: skip
PLANNED = {
    "id": "digits-1", "state": "ready", "reason": "", "detail": "", "age": 12.5, "served": 8, "load": 1,
    "seconds_until_ttl": 47.5, "seconds_until_successor": 45.5, "calls_until_max": None, "in_turn": 1,
    "fate": "is replaced in its turn",
}  # fmt: skip
DUMP: dict[str, Any] = {
    "pid": 7, "at": 1e9, "calls": [{"id": "c-1", "command": "classify", "seconds": 1.5, "remaining": 58.5}],
    "threads": [
        {
            "thread": 7, "name": "python", "state": "R", "cpu_seconds": 2.5, "note": "",
            "frames": [{"file": "digits.py", "line": 12, "function": "classify"}],
        },
    ],
}  # fmt: skip
COMMAND: dict[str, Any] = {
    "name": "classify", "summary": "Which digit it is.", "description": "", "streams": False, "idempotent": True,
    "timeout": 0.0, "schema": {"type": "object", "properties": {"pixels": {"type": "array"}}},
}  # fmt: skip


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
        self.events: list[dict[str, Any]] = []
        self.figures: dict[str, dict[str, Any]] = {}
        self.pools: list[dict[str, Any]] = [dict(POOL)]
        self.workers: list[dict[str, Any]] = [dict(WORKER)]
        self.drained: tuple[str, str] | None = None
        self.known: list[dict[str, Any]] = [dict(COMMAND)]

    @staticmethod
    def _answer(value: Any) -> Answer:
        return Answer(value, "call-1", "digits-1", 0.0015, 0.25)

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error

    async def aexecute(
        self, pool: str, command: str, arguments: Mapping[str, Any], /, *, timeout: float | None, priority: int
    ) -> Answer:
        self._raise()
        self.calls.append((pool, command, dict(arguments), timeout, priority))
        if pool != "digits":
            raise PoolUnknown(f"No pool is named {pool!r}.")
        if command not in self.answers:
            raise CommandUnknown(f"The pool digits has no command {command!r}.")
        value = self.answers[command]
        return self._answer(value(arguments) if isinstance(value, Callable) else value)  # type: ignore[arg-type]

    def aevents(
        self, pool: str, command: str, arguments: Mapping[str, Any], /, *, timeout: float | None, priority: int
    ) -> FakeStream:
        self.calls.append((pool, command, dict(arguments), timeout, priority))
        stream = FakeStream([self.error] if self.error else self.script)
        self.streams.append(stream)
        return stream

    def status(self, pool: str = "") -> dict[str, Any]:
        self._raise()
        pools = [one for one in self.pools if pool in ("", one["name"])]
        return {
            "node": {
                "name": "node-1",
                "clock": "beat",
                "problems": [],
                "draining": bool(self.drained),
                **self._drain(),
            },
            "pools": pools,
            "workers": [dict(one) for one in self.workers],
        }

    async def astatus(self, pool: str = "") -> dict[str, Any]:
        return self.status(pool)

    def watch(self, after: int = 0) -> dict[str, Any]:
        events = [event for event in self.events if event["seq"] > after]
        return {**self.status(), "events": events, "figures": self.figures}

    async def awatch(self, after: int = 0) -> dict[str, Any]:
        return self.watch(after)

    async def acommands(self, pool: str) -> list[dict[str, Any]]:
        return self.commands(pool)

    def commands(self, pool: str) -> list[dict[str, Any]]:
        self._raise()
        return self.known

    def recycle(self, pool: str, worker: str = "", actor: str = "", reason: str = "") -> dict[str, Any]:
        self._raise()
        self.orders.append((pool, worker, actor, reason))
        return {"planned": 2}

    def kill(self, worker: str, actor: str = "", reason: str = "") -> dict[str, Any]:
        self._raise()
        self.orders.append((worker, "kill", actor, reason))
        return {"worker": worker}

    def dump(self, worker: str, actor: str = "", reason: str = "") -> dict[str, Any]:
        self._raise()
        self.orders.append((worker, "dump", actor, reason))
        return {"pool": "digits", **dict(DUMP), "worker": worker}

    async def adump(self, worker: str, actor: str = "", reason: str = "") -> dict[str, Any]:
        return self.dump(worker, actor, reason)

    def _drain(self) -> dict[str, Any]:
        actor, reason = self.drained or ("", "")
        return {"drain_since": 1e9 if self.drained else 0.0, "drain_actor": actor, "drain_reason": reason}

    def drain(self, actor: str = "", reason: str = "") -> dict[str, Any]:
        self._raise()
        self.orders.append(("node-1", "drain", actor, reason))
        self.drained = (actor, reason)
        return {"draining": True}

    def resume(self, actor: str = "", reason: str = "") -> dict[str, Any]:
        self._raise()
        self.orders.append(("node-1", "resume", actor, reason))
        self.drained = None
        return {"draining": False}

    def plan(self, pool: str, worker: str = "") -> dict[str, Any]:
        self._raise()
        workers = [dict(PLANNED), {**PLANNED, "id": "digits-2", "load": 0, "in_turn": 2}]
        workers = [one for one in workers if worker in ("", one["id"])]
        return {
            "pool": pool,
            "workers": workers,
            "at_once": 1,
            "max_surge": 1,
            "max_unavailable": 0,
            "load_seconds": 2.0,
        }

    async def aplan(self, pool: str, worker: str = "") -> dict[str, Any]:
        return self.plan(pool, worker)

    def apply(self, pool: str = "", action: str = "", actor: str = "", reason: str = "") -> dict[str, Any]:
        self._raise()
        self.orders.append((pool, action, actor, reason))
        return {"pools": 1}

    async def arecycle(self, pool: str, worker: str = "", actor: str = "", reason: str = "") -> dict[str, Any]:
        return self.recycle(pool, worker, actor, reason)

    def sweep(self, source: str, interval: float) -> dict[str, Any]:
        self._raise()
        self.orders.append((source, interval))
        return {"pools": 1, "workers": 2, "planned": 0}


def unreachable() -> BrokerUnreachable:
    return BrokerUnreachable("No broker answers at /run/broker.sock.", outcome="not_started")

"""The pools of `snakepit.testing` in place of the fake broker: the same commands, and the same view from a test."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from snakepit import Adapter, Context, command
from snakepit.testing import override_pools
from tests.process.contract.fake_broker import POOL

FIELDS = {"profile": "thread", "threads": 64, "size": 1, "max_payload": 2**26, "queue_timeout": 60.0}


class Echo(Adapter):
    """The commands of the fake broker, as an adapter."""

    thread_safe = True

    def __init__(self, seen: KitBroker) -> None:
        self.seen = seen

    @command
    def echo(self, **given: Any) -> Any:
        """Say it again."""
        sizes = {name: len(value) for name, value in given.items() if isinstance(value, bytes)}
        rest = {name: value for name, value in given.items() if name not in sizes}
        return {**rest, "attachments": sizes} if sizes else rest

    @command
    def slow(self, call: Context, value: Any = None) -> Any:
        self.seen.running.set()
        while not self.seen.released.is_set():
            if call.wait(0.005):
                self.seen.was_cancelled("slow")
                call.raise_if_cancelled()
        return value

    @command
    def mute(self, call: Context) -> None:
        self.seen.running.set()
        call.wait(3600)
        self.seen.was_cancelled("mute")
        call.raise_if_cancelled()

    @command
    def count(self, to: int) -> Iterator[int]:
        try:
            for number in range(to):
                yield number
                self.seen.sent += 1
        except GeneratorExit:
            self.seen.was_cancelled("count")
            raise

    @command
    def noisy(self, call: Context) -> Iterator[int]:
        call.progress(0.5, "half")
        call.log("a line")
        yield 1

    @command
    def fail(self, n: int = 0) -> None:
        raise ValueError("no")

    @command
    def raw(self, data: bytes = b"", nested: bool = False) -> Any:
        return {"image": b"\x89PNG"} if nested else data


class KitBroker:
    """What a test of the contract asks of a broker, answered by the kit."""

    in_process = True
    takes_calls = True

    def __init__(self, directory: Any) -> None:
        self.address = str(directory / "no-such-socket")  # no client may use it: all calls come to the kit
        self.cancelled: list[str] = []
        self.sent = self.sessions = self.farewells = 0
        self.changed, self.running, self.released = threading.Event(), threading.Event(), threading.Event()
        self.options: dict[str, Any] = {}  # of connect()

    def _bound(self) -> type[Adapter]:
        seen = self

        class Bound(Echo):
            def __init__(self) -> None:
                super().__init__(seen)

        return Bound

    def start(self) -> KitBroker:
        self._override = override_pools({POOL: {"adapter": self._bound(), **FIELDS}})
        self._pools = self._override.__enter__()
        local: Any = self._pools.target.local
        connect = local.connect

        async def counted(*given: Any) -> None:
            self.sessions += 1
            await connect(*given)
            self.farewells += 1

        local.connect = counted
        return self

    def stop(self) -> None:
        self.released.set()
        self._override.__exit__(None, None, None)

    def was_cancelled(self, name: str) -> None:
        self.cancelled.append(name)
        self.changed.set()

    @property
    def calls(self) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(
                command=call.command,
                arguments=json.dumps(call.arguments).encode(),
                timeout=call.timeout or 0.0,
                priority=call.priority,
                affinity=call.affinity,
                credit=int(call.streams),
            )
            for call in self._pools.calls
        ]

    def release(self) -> None:
        self.released.set()

    def ask(self, read: Callable[[], Any]) -> Any:
        return read()

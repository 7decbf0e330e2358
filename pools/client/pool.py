"""One pool as an object, and as an Executor.

with client.pool("digits") as digits:
    futures = [digits.submit("classify", {"pixels": image}) for image in images]
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, wait
from typing import TYPE_CHECKING, Any

from snakepit.pools.broker.status import BrokerStatus, CommandInfo
from snakepit.pools.client.call_messages import Answer
from snakepit.pools.client.pending import CallFuture
from snakepit.pools.client.streams import AsyncStream, Stream

if TYPE_CHECKING:
    from snakepit.pools.client.client import Arguments, Client


class PoolClient(Executor):
    """A Client for one pool. As an Executor it takes a command's name instead of a function.

    `loop.run_in_executor(client.pool("digits"), "classify", {...})` works too.
    """

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name
        self._futures: weakref.WeakSet[CallFuture] = weakref.WeakSet()
        self._down = False

    def __repr__(self) -> str:
        return f"<PoolClient {self.name} at {self.client.target}>"

    def call(self, command: str, arguments: Arguments = None, /, **options: Any) -> Any:
        """`Client.call` for this pool."""
        return self.client.call(self.name, command, arguments, **options)

    def execute(self, command: str, arguments: Arguments = None, /, **options: Any) -> Answer:
        """`Client.execute` for this pool."""
        return self.client.execute(self.name, command, arguments, **options)

    def stream(self, command: str, arguments: Arguments = None, /, **options: Any) -> Stream:
        """`Client.stream` for this pool."""
        return self.client.stream(self.name, command, arguments, **options)

    def events(self, command: str, arguments: Arguments = None, /, **options: Any) -> Stream:
        """`Client.events` for this pool."""
        return self.client.events(self.name, command, arguments, **options)

    async def acall(self, command: str, arguments: Arguments = None, /, **options: Any) -> Any:
        """`Client.acall` for this pool."""
        return await self.client.acall(self.name, command, arguments, **options)

    async def aexecute(self, command: str, arguments: Arguments = None, /, **options: Any) -> Answer:
        """`Client.aexecute` for this pool."""
        return await self.client.aexecute(self.name, command, arguments, **options)

    def astream(self, command: str, arguments: Arguments = None, /, **options: Any) -> AsyncStream:
        """`Client.astream` for this pool."""
        return self.client.astream(self.name, command, arguments, **options)

    def aevents(self, command: str, arguments: Arguments = None, /, **options: Any) -> AsyncStream:
        """`Client.aevents` for this pool."""
        return self.client.aevents(self.name, command, arguments, **options)

    def submit(  # type: ignore[override]
        self, command: str, arguments: Arguments = None, /, **options: Any
    ) -> CallFuture:
        """`Client.submit` for this pool."""
        if self._down:
            raise RuntimeError("cannot submit a call after shutdown")
        future = self.client.submit(self.name, command, arguments, **options)
        self._futures.add(future)
        return future

    def map(  # type: ignore[override]
        self, command: str, items: Iterable[Mapping[str, Any]], /, **options: Any
    ) -> Iterator[Any]:
        """`Client.map` for this pool."""
        if self._down:
            raise RuntimeError("cannot map calls after shutdown")
        return self.client.map(self.name, command, items, **options)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse further calls through this object; the connection and the pool do not change."""
        self._down = True
        futures = list(self._futures)
        if cancel_futures:
            for future in futures:
                future.cancel()
        if wait:
            _wait(futures)

    def commands(self) -> tuple[CommandInfo, ...]:
        """The pool's commands."""
        return self.client.commands(self.name)

    def status(self) -> BrokerStatus:
        """The pool's part of the broker's status."""
        return self.client.status(self.name)


_wait = wait  # `shutdown` has a parameter of the same name

"""Workers that several tests share: started once, linked from one event loop on a thread of its own.

Only for tests that leave the worker as they found it. Those that drain, kill or stall one start their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from tests.process.workers import harness

collect_ignore = ["failing_import.py"]  # it cannot be imported, on purpose

Use = Callable[[Callable[[harness.Link], Coroutine[Any, Any, Any]]], Any]


class Workers:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = contextlib.AsyncExitStack()
        self._links: dict[tuple[str, str], harness.Link] = {}

    def user_of(self, adapter: str, profile: str) -> Use:
        """A function that runs an async function with the link of this worker."""

        async def use(act: Callable[[harness.Link], Coroutine[Any, Any, Any]]) -> Any:
            key = (adapter, profile)
            if key not in self._links:
                starting = harness.worker(adapter, profile=profile, threads=2)
                self._links[key] = await self._stack.enter_async_context(starting)
            return await act(self._links[key])

        return lambda act: asyncio.run_coroutine_threadsafe(use(act), self._loop).result(2 * harness.PATIENCE)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result(harness.PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    shared = Workers()
    yield shared
    shared.close()


@pytest.fixture(params=["process", "thread"])
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def echo(workers: Workers, profile: str) -> Use:
    return workers.user_of("echo", profile)


@pytest.fixture
def busy(workers: Workers, profile: str) -> Use:
    return workers.user_of("busy", profile)


@pytest.fixture
def broken(workers: Workers, profile: str) -> Use:
    return workers.user_of("broken", profile)

"""The asyncio loop of a worker's async commands, made when the first of them runs.

Process profile: it runs on the main thread while an async command runs there, so that a plain command may use
asyncio.run itself. Thread profile: one thread runs it for all slots; a slot waits there for its call.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

CLOSE_SECONDS = 5.0  # for what tasks the commands left behind to end


class EventLoop(Protocol):
    def run(self, coroutine: Coroutine[Any, Any, T]) -> T: ...

    def close(self) -> None: ...


class OwnLoop:
    """Runs on the thread that calls `run`."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        loop = self._loop
        task = loop.create_task(coroutine)
        while True:
            try:
                return loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt) as error:
                # Raised in a task that the command made, it comes out here and leaves ours waiting: go on with it.
                if task.done():
                    raise
                traceback.print_exc()
                if isinstance(error, KeyboardInterrupt):
                    task.cancel()

    def close(self) -> None:
        if self._loop is not None:
            try:
                self._loop.run_until_complete(_tidy())
            finally:
                self._loop.close()
                self._loop = None


class SharedLoop:
    """Runs on a thread of its own, for all slots."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        answer: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._started())
        return answer.result()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._serve, args=(self._loop,), name="async", daemon=True)
                self._thread.start()
            return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                loop.run_forever()
                return
            except (SystemExit, KeyboardInterrupt):  # of a task that a command made: the loop is everybody's
                traceback.print_exc()

    def close(self) -> None:
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(_tidy(), loop).result(CLOSE_SECONDS + 1)
        except TimeoutError:
            sys.stderr.write("the event loop of the async commands did not become idle\n")
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _tidy() -> None:
    """End what tasks and generators the commands left behind, as asyncio.run does, but within a time."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=CLOSE_SECONDS)
    await asyncio.get_running_loop().shutdown_asyncgens()

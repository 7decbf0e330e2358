"""Async commands: the asyncio loop that runs them, made when the first of them runs, and their cancel and credit.

Process profile: the loop runs on the main thread while an async command runs there, so that a plain command may call
asyncio.run itself. Thread profile: one thread runs the loop for all slots, and a slot waits there for its call.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import traceback
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from snakepit.workers.call import AssignedCall
from snakepit.workers.runtime import failure

T = TypeVar("T")

CLOSE_SECONDS = 5.0  # for tasks that the commands left behind to end


class CommandLoop(Protocol):
    """Runs the coroutines of async commands."""

    def contain(self) -> None:
        """From now on, undo what a coroutine sets on the loop."""
        ...

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T: ...

    def close(self) -> None: ...


class OwnLoop:
    """A loop on the thread that calls `run`. What a call leaves behind on it is undone at its end: tasks, settings."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeps = True  # what `setup` sets on the loop

    def contain(self) -> None:
        self._keeps = False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        loop = self._loop
        before, settings = asyncio.all_tasks(loop), _settings(loop)
        try:
            return self._run(loop, loop.create_task(coroutine))
        finally:
            if not self._keeps and _settings(loop) != settings:
                _set(loop, *settings)
            left = asyncio.all_tasks(loop) - before
            if left:
                loop.run_until_complete(_cancelled(left))

    def _run(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[T]) -> T:
        while True:
            try:
                return loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt) as error:
                # If a task that the command made raises it, it comes out here while our task still waits: go on.
                if task.done():
                    raise
                traceback.print_exc()
                if isinstance(error, KeyboardInterrupt):
                    task.cancel()

    def close(self) -> None:
        if self._loop is not None:
            try:
                self._loop.run_until_complete(_end_tasks())
            finally:
                self._loop.close()
                self._loop = None


def _settings(loop: asyncio.AbstractEventLoop) -> tuple[Any, Any, bool, float]:
    slow = getattr(loop, "slow_callback_duration", 0.0)  # asyncio's own loops have it
    return loop.get_task_factory(), loop.get_exception_handler(), loop.get_debug(), slow


def _set(loop: asyncio.AbstractEventLoop, factory: Any, handler: Any, debug: bool, slow: float) -> None:
    loop.set_task_factory(factory)
    loop.set_exception_handler(handler)
    loop.set_debug(debug)
    loop.slow_callback_duration = slow


class SharedLoop:
    """A loop on a thread of its own, for all slots."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def contain(self) -> None:
        """Do nothing: the calls of all slots share the loop."""

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
            except (SystemExit, KeyboardInterrupt):  # raised by a task that a command made; all slots need the loop
                traceback.print_exc()

    def close(self) -> None:
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(_end_tasks(), loop).result(CLOSE_SECONDS + 1)
        except TimeoutError:
            sys.stderr.write("the event loop of the async commands did not become idle\n")
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end_tasks() -> None:
    """End the tasks and generators that commands left behind, as asyncio.run does, but within CLOSE_SECONDS."""
    await _cancelled(asyncio.all_tasks() - {asyncio.current_task()})
    await asyncio.get_running_loop().shutdown_asyncgens()


async def _cancelled(left: set[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for their ends, within CLOSE_SECONDS."""
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=CLOSE_SECONDS)


class TaskWatch:
    """Brings a call's cancel and credit from the I/O thread to the asyncio task that runs the call."""

    def __init__(self, call: AssignedCall) -> None:
        self._call = call
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._asked = False
        left = call.remaining
        # A loop may fire a timer one clock tick early, before the deadline has passed.
        self._timer = self._loop.call_later(left + 0.001, self._check) if left != math.inf else None
        call.watch(self._on_change)
        self._check()  # for changes before `watch`

    def _on_change(self) -> None:
        self._loop.call_soon_threadsafe(self._check)

    def _check(self) -> None:
        self._changed.set()
        if self._call.cancelled and not self._asked and self._task is not None:
            self._asked = True  # once: a second cancel would interrupt code that handles the first
            self._task.cancel()

    async def take_credit(self, size: int) -> None:
        while True:
            self._changed.clear()
            if self._call.try_take_credit(size):
                return
            await self._changed.wait()

    def close(self) -> None:
        self._asked = True  # a pending `_look` must not cancel the generator's clean-up
        self._call.watch(None)
        if self._timer is not None:
            self._timer.cancel()


async def close_generator(chunks: AsyncGenerator[Any, Any]) -> None:
    """Run the generator's own `finally`. The call has its final report by now, so an error there goes to stderr."""
    try:
        await chunks.aclose()
    except BaseException as error:
        sys.stderr.write(failure.traceback_of(error))

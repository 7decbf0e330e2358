"""One call on one slot, from its arguments to its last word.

     decode ▶ check ▶ method(**arguments) ─┬─ plain value ──────▶ Result
                                           ├─ generator ────────▶ Chunk, Chunk, ... Result
                                           ├─ coroutine ────────▶ Result
                                           └─ async generator ──▶ Chunk, Chunk, ... Result

What the method returned decides, not how it was defined: a decorated or delegating method works like a direct one.
Nothing is ever raised into running user code from outside; a generator is closed between chunks, a task cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import decimal
import inspect
import math
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator, Mapping
from contextvars import Context as ContextVariables
from contextvars import copy_context
from typing import Any, NoReturn

from snakepit.workers.call import Call
from snakepit.workers.context import CallCancelled, Context, Reports
from snakepit.workers.report import Chunk, Failure, Result, Value
from snakepit.workers.runtime import failure
from snakepit.workers.runtime.event_loop import EventLoop
from snakepit.workers.schema.annotation import nearest
from snakepit.workers.schema.commands import Bound
from snakepit.workers.schema.signature import BadArguments, decode
from snakepit.workers.schema.value import ResultTooLarge, encode, encode_json

Last = Result | Failure
PLAIN = frozenset({str, int, float, bool, type(None), dict, list, tuple, bytes})


class Execution:
    """Runs calls, each in a fresh copy of the context variables that the adapter's setup left. Keeps no call."""

    def __init__(self, commands: Mapping[str, Bound], reports: Reports, loop: EventLoop) -> None:
        self._commands = commands
        self._reports = reports
        self._loop = loop
        self._variables = copy_context()
        self._decimal = decimal_context(self._variables)
        self.forked = False  # True in a process that a command forked: see `end_fork`

    def perform(self, call: Call) -> Last:
        """Return the call's final report. Never raises: the caller gets an answer, whatever the command does."""
        return self._variables.copy().run(self._perform, call)

    def _perform(self, call: Call) -> Last:
        if self._decimal is not None:
            # The variable holds a mutable object, which a copy of the variables still shares.
            decimal.setcontext(self._decimal.copy())
        if call.cancelled:
            return failure.stopped(call)
        bound = self._commands.get(call.command)
        if bound is None:
            hint = nearest(call.command, self._commands)
            details = {"commands": sorted(self._commands)}
            return failure.failure(call, "command_unknown", f"no command {call.command[:80]!r}{hint}", details)
        try:
            arguments = bound.signature.check(decode(call.arguments, call.attachments))
        except BadArguments as why:
            return failure.failure(call, "bad_arguments", str(why), {"arguments": why.problems})
        except BaseException as error:  # a type of the user's own (Enum, dataclass) failed in a way of its own
            return failure.raised(call, error, "bad_arguments")
        if bound.signature.context:
            arguments[bound.signature.context] = Context(call, self._reports)
        call.begin()
        try:
            return self._run(call, bound.method(**arguments))
        except BaseException as error:
            if self.forked:
                end_fork(error)
            return ended_by(call, error)
        finally:
            if self.forked:
                end_fork()

    def _run(self, call: Call, returned: Any) -> Last:
        if type(returned) in PLAIN:  # the questions below cost more than the answer
            return result(call, returned)
        if isinstance(returned, Generator):
            if inspect.isgenerator(returned):
                return self._stream(call, returned) if call.streaming else self._collect(call, returned)
        elif isinstance(returned, Coroutine):
            return self._loop.run(self._await(call, returned))
        elif isinstance(returned, AsyncGenerator):
            return self._loop.run(self._await_stream(call, returned))
        return result(call, returned)

    def _stream(self, call: Call, chunks: Generator[Any, Any, Any]) -> Last:
        try:
            for chunk in chunks:
                if self.forked:
                    end_fork()
                # Encoded before the wait: what the generator gave may be a buffer that it will use again.
                value = encode(chunk, call.max_result, "chunk")
                if not call.take_credit(len(value.data)):
                    return failure.stopped(call)
                self._reports.put(Chunk(call.sequence, value))
                if call.cancelled:
                    return failure.stopped(call)
        finally:
            # Here and not when it is collected: its `finally` is to run on this thread, before the call ends.
            chunks.close()
        return failure.stopped(call) if call.cancelled else Result(call.sequence, None, call.seconds)

    def _collect(self, call: Call, chunks: Generator[Any, Any, Any]) -> Last:
        collected = Collected(call.max_result)
        try:
            for chunk in chunks:
                if self.forked:
                    end_fork()
                collected.add(chunk)
                if call.cancelled:
                    return failure.stopped(call)
        finally:
            chunks.close()
        return Result(call.sequence, collected.value(), call.seconds)

    async def _await(self, call: Call, coroutine: Awaitable[Any]) -> Last:
        watch = TaskWatch(call)
        try:
            return result(call, await coroutine)
        except BaseException as error:
            if self.forked:
                end_fork(error)
            return ended_by(call, error)
        finally:
            if self.forked:
                end_fork()
            watch.close()

    async def _await_stream(self, call: Call, chunks: AsyncGenerator[Any, Any]) -> Last:
        watch = TaskWatch(call)
        collected = Collected(call.max_result)
        try:
            async for chunk in chunks:
                if self.forked:
                    end_fork()
                if not call.streaming:
                    collected.add(chunk)
                    continue
                value = encode(chunk, call.max_result, "chunk")
                await watch.take_credit(len(value.data))
                self._reports.put(Chunk(call.sequence, value))
                if call.cancelled:  # seen here too: a generator that never waits never lets its cancellation in
                    return failure.stopped(call)
            return Result(call.sequence, None if call.streaming else collected.value(), call.seconds)
        except BaseException as error:
            if self.forked:
                end_fork(error)
            return ended_by(call, error)
        finally:
            if self.forked:
                end_fork()
            watch.close()
            await close_quietly(chunks)


class TaskWatch:
    """Carries a call's cancel and credit, which come on the I/O thread, to the asyncio task that runs it."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._asked = False
        left = call.remaining
        # A loop may fire a timer a clock tick early, when the deadline has not passed yet.
        self._timer = self._loop.call_later(left + 0.001, self._look) if left != math.inf else None
        call.watch(self._on_news)
        self._look()  # what came before the watch

    def _on_news(self) -> None:
        self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        self._news.set()
        if self._call.cancelled and not self._asked and self._task is not None:
            self._asked = True  # once: code that handles its cancellation is not to be hit again while it does
            self._task.cancel()

    async def take_credit(self, size: int) -> None:
        while True:
            self._news.clear()
            if self._call.try_take_credit(size):
                return
            await self._news.wait()

    def close(self) -> None:
        self._asked = True  # a look that is on its way must not hit the generator's clean-up
        self._call.watch(None)
        if self._timer is not None:
            self._timer.cancel()


class Collected:
    """The chunks of a stream whose caller wants one result: a JSON array, bounded while it grows."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: list[bytes] = []
        self._size = 2  # the brackets

    def add(self, chunk: Any) -> None:
        item = encode_json(chunk, self._limit)
        self._size += len(item) + 1
        if self._size > self._limit + 1:  # no comma after the last
            raise ResultTooLarge(self._size, self._limit)
        self._items.append(item)

    def value(self) -> Value:
        return Value(b"[" + b",".join(self._items) + b"]")


def result(call: Call, returned: Any) -> Last:
    return Result(call.sequence, encode(returned, call.max_result), call.seconds)


def ended_by(call: Call, error: BaseException) -> Failure:
    """What an exception that left the command means."""
    if isinstance(error, ResultTooLarge):
        return failure.failure(call, "result_too_large", str(error), {"size": error.size, "limit": error.limit})
    if isinstance(error, CallCancelled | asyncio.CancelledError) and call.cancelled:
        return failure.stopped(call, error)
    return failure.raised(call, error)


async def close_quietly(chunks: AsyncGenerator[Any, Any]) -> None:
    """Run the generator's own `finally`. The call has its answer by now, so an error there goes to stderr."""
    try:
        await chunks.aclose()
    except BaseException as error:
        sys.stderr.write(failure.traceback_of(error))


def decimal_context(variables: ContextVariables) -> decimal.Context | None:
    """The decimal context among these variables, if there is one."""
    return next((value for value in variables.values() if isinstance(value, decimal.Context)), None)


def end_fork(error: BaseException | None = None) -> NoReturn:
    """End a process that a command forked, as Python would end a program. The call belongs to the worker.

    Without exit handlers and without waiting for threads: both were copied from the worker and are the worker's.
    """
    code = 0
    if isinstance(error, SystemExit) and isinstance(error.code, int | None):
        code = error.code or 0
    elif error is not None:
        code = 1
        sys.stderr.write(failure.traceback_of(error))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed by the command, or its reader is gone
            stream.flush()
    os._exit(code & 0xFF)

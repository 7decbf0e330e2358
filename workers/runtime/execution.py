"""One call on one slot, from its arguments to its final report.

     decode ▶ check ▶ method(**arguments) ─┬─ plain value ──────▶ ResultReport
                                           ├─ generator ────────▶ ChunkReport, ChunkReport, ... ResultReport
                                           ├─ coroutine ────────▶ ResultReport
                                           └─ async generator ──▶ ChunkReport, ChunkReport, ... ResultReport

The type of the returned object decides, not how the method was defined: a decorated or delegating method works like a
direct one. Nothing is raised into running user code from outside: a generator is closed between chunks, a task is
cancelled.

Each call runs in a copy of the context variables that `setup` left. A process that a command forks ends where it
returns to this module: the call belongs to the worker, and only the worker may report on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import decimal
import inspect
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextvars import Context as ContextVariables
from contextvars import copy_context
from typing import Any, NoReturn, TypeVar

from snakepit.workers.buffers import BufferTooLarge
from snakepit.workers.call import AssignedCall
from snakepit.workers.context import CallCancelled, Context, ReportSink, Snooze
from snakepit.workers.report import AnswerReport, EncodedValue, FailureReport, ResultReport
from snakepit.workers.runtime import failure
from snakepit.workers.runtime.async_commands import CommandLoop, TaskWatch, close_generator
from snakepit.workers.runtime.chunks import ChunkSender, PartsSender
from snakepit.workers.schema.annotation import nearest
from snakepit.workers.schema.commands import BoundCommand
from snakepit.workers.schema.not_carried import NotCarried, ValueTooLarge
from snakepit.workers.schema.signature import InvalidArguments, decode
from snakepit.workers.schema.typed import SCALARS, WRAPPER, encode_tree
from snakepit.workers.schema.value import encode, encode_json

T = TypeVar("T")

PLAIN = frozenset({str, int, float, bool, type(None), dict, list, tuple, bytes})


class Execution:
    """Runs calls and keeps no state of them."""

    def __init__(
        self,
        commands: Mapping[str, BoundCommand],
        reports: ReportSink,
        loop: CommandLoop,
        sender: PartsSender | None = None,
    ) -> None:
        """`sender`: takes the large parts of a stream's values; None: they are in the text."""
        self._commands = commands
        self.reports = reports
        self._chunks = ChunkSender(reports, sender)
        self._loop = loop
        self._variables = copy_context()
        self._decimal = decimal_context(self._variables)
        self.forked = False  # True in a process that a command forked

    def perform(self, call: AssignedCall) -> AnswerReport:
        """Run the command and return the call's final report. Never raises, whatever the command does."""
        return self._variables.copy().run(self._perform, call)

    def in_context(self, run: Callable[..., T], *args: Any) -> T:
        """Run a function in a copy of the context variables that `setup` left."""
        return self._variables.copy().run(run, *args)

    def _perform(self, call: AssignedCall) -> AnswerReport:
        bound = self._commands.get(call.command)
        arguments = self.prepare(call, bound)
        if not isinstance(arguments, dict):
            return arguments
        assert bound is not None
        if bound.signature.context:
            arguments[bound.signature.context] = Context(call, self.reports)
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

    def prepare(self, call: AssignedCall, bound: BoundCommand | None) -> dict[str, Any] | FailureReport:
        """Return the checked arguments of a call, or its final report if it cannot run."""
        if call.cancelled:
            return failure.stopped(call)
        if bound is None or bound.problem:
            return self._not_callable(call, bound)
        if self._decimal is not None:
            # A copy of the variables shares this mutable object.
            decimal.setcontext(self._decimal.copy())
        try:
            return bound.signature.check(decode(call.arguments, call.attachments, call.buffers))
        except InvalidArguments as error:
            return failure.failure(call, "bad_arguments", str(error), {"arguments": error.problems})
        except BaseException as error:  # code of the user's own type (an Enum, a dataclass) failed in an unusual way
            return failure.raised(call, error, "bad_arguments")

    def _not_callable(self, call: AssignedCall, bound: BoundCommand | None) -> FailureReport:
        if bound is not None:
            return failure.failure(call, "adapter_error", f"InvalidAdapter: {bound.problem}")
        hint = nearest(call.command, self._commands)
        details = {"commands": sorted(self._commands)}
        return failure.failure(call, "command_unknown", f"no command {call.command[:80]!r}{hint}", details)

    def _run(self, call: AssignedCall, returned: Any) -> AnswerReport:
        if type(returned) in PLAIN:  # the checks below take longer than most answers
            return result(call, returned)
        if isinstance(returned, Generator):
            if inspect.isgenerator(returned):
                return self._stream(call, returned)
        elif isinstance(returned, Coroutine):
            return self._loop.run(self._await(call, returned))
        elif isinstance(returned, AsyncGenerator):
            return self._loop.run(self._await_stream(call, returned))
        return result(call, returned)

    def _stream(self, call: AssignedCall, chunks: Generator[Any, Any, Any]) -> AnswerReport:
        collected = Collected(call)
        try:
            for chunk in chunks:
                if self.forked:
                    end_fork()
                if call.streaming:
                    if not self._chunks.send(call, chunk):
                        return failure.stopped(call)
                else:
                    collected.add(chunk)
                if call.cancelled:
                    return failure.stopped(call)
        except BaseException:
            collected.close()
            raise
        finally:
            # Explicitly: the generator's `finally` must run on this thread, before the call ends.
            chunks.close()
        if not call.streaming:
            return ResultReport(call.sequence, collected.value(), call.seconds)
        return failure.stopped(call) if call.cancelled else ResultReport(call.sequence, None, call.seconds)

    async def _await(self, call: AssignedCall, coroutine: Awaitable[Any]) -> AnswerReport:
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

    async def _await_stream(self, call: AssignedCall, chunks: AsyncGenerator[Any, Any]) -> AnswerReport:
        watch = TaskWatch(call)
        collected = Collected(call)
        try:
            async for chunk in chunks:
                if self.forked:
                    end_fork()
                if not call.streaming:
                    collected.add(chunk)
                    continue
                await self._chunks.asend(call, chunk, watch)
                if call.cancelled:  # a generator that never waits gives its task no chance to be cancelled
                    return failure.stopped(call)
            return ResultReport(call.sequence, None if call.streaming else collected.value(), call.seconds)
        except BaseException as error:
            if self.forked:
                end_fork(error)
            collected.close()
            return ended_by(call, error)
        finally:
            if self.forked:
                end_fork()
            watch.close()
            await close_generator(chunks)


class Collected:
    """The chunks of a stream whose caller reads one result: a JSON array whose size is checked as it grows."""

    def __init__(self, call: AssignedCall) -> None:
        self._limit = call.max_result
        self._tags = call.typed  # for a Python caller
        self._buffers = None if call.streaming else call.new_buffers()
        self._tagged = False  # whether an item has any
        self._items: list[bytes] = []
        self._size = 2  # the brackets

    def add(self, chunk: Any) -> None:
        what = f"result[{len(self._items)}]"
        if self._tags:
            item, tagged = encode_tree(chunk, self._limit, what, self._buffers)
            self._tagged = self._tagged or tagged
        else:
            item = encode_json(chunk, self._limit, what)
        self._size += len(item) + 1
        if self._size > self._limit + 1:  # there is no comma after the last item
            raise ValueTooLarge(self._size, self._limit)
        self._items.append(item)

    def value(self) -> EncodedValue:
        data = b"[" + b",".join(self._items) + b"]"
        return EncodedValue(b"%s%s}" % (WRAPPER, data) if self._tagged else data, buffers=self._buffers)

    def close(self) -> None:
        """Release the large parts of a stream that failed."""
        if self._buffers is not None:
            self._buffers.close()


def result(call: AssignedCall, returned: Any) -> ResultReport:
    buffers = None if type(returned) in SCALARS else call.new_buffers()
    try:
        value = encode(returned, call.max_result, tags=call.typed, buffers=buffers)
    except BaseException:
        if buffers is not None:
            buffers.close()
        raise
    return ResultReport(call.sequence, value, call.seconds)


def ended_by(call: AssignedCall, error: BaseException) -> FailureReport:
    """Return the report for an exception that left the command. Never raises."""
    try:
        return _ended_by(call, error)
    except BaseException:  # the exception looks at its attributes itself, and even its class is one
        name = failure.read_name(type(error))
        return failure.failure(call, "adapter_error", f"{name}: <{name} that cannot be shown>")


def _ended_by(call: AssignedCall, error: BaseException) -> FailureReport:
    if isinstance(error, ValueTooLarge | BufferTooLarge):
        return failure.failure(call, "result_too_large", str(error), {"size": error.size, "limit": error.limit})
    if isinstance(error, NotCarried):  # without a traceback, which would show this package only
        return failure.failure(call, "adapter_error", f"The result cannot be sent: {error}.", {"path": error.path})
    if isinstance(error, Snooze):
        message = f"the command put its work off for {error.seconds:g} s"
        return failure.failure(call, "snoozed", message, {"seconds": error.seconds})
    if isinstance(error, CallCancelled | asyncio.CancelledError) and call.cancelled:
        return failure.stopped(call, error)
    return failure.raised(call, error)


def decimal_context(variables: ContextVariables) -> decimal.Context | None:
    """The decimal context among these variables, if there is one."""
    return next((value for value in variables.values() if isinstance(value, decimal.Context)), None)


def end_fork(error: BaseException | None = None) -> NoReturn:
    """End a forked process with the exit code that Python would give it.

    Exit handlers do not run and threads are not waited for: they are copies, and belong to the worker.
    """
    code = 0
    if isinstance(error, SystemExit) and isinstance(error.code, int | None):
        code = error.code or 0
    elif error is not None:
        code = 1
        sys.stderr.write(failure.traceback_of(error))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed by the command, or the reader of the pipe is gone
            stream.flush()
    os._exit(code & 0xFF)

"""Several calls of one command on one slot: one call of the method, and a report for each call.

     calls ─▶ check each ─▶ columns ─▶ method(**columns) ─▶ list ─▶ ResultReport or FailureReport for each
                 └─▶ bad_arguments, for that call alone

If the method raises, an idempotent batch runs again in halves, until the call that makes it raise is alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from snakepit.workers.call import AssignedCall
from snakepit.workers.context import Context
from snakepit.workers.report import AnswerReport
from snakepit.workers.runtime import failure
from snakepit.workers.runtime.async_commands import CommandLoop
from snakepit.workers.runtime.execution import Execution, end_fork, ended_by, result
from snakepit.workers.schema.commands import BoundCommand

Arguments = dict[str, Any]
NO_LIST = (str, bytes, bytearray, Mapping, AbstractSet)


class NotAList(Exception):
    """The method did not return one result for each call."""


class BatchExecution:
    """Runs batches and keeps no state of them."""

    def __init__(self, execution: Execution, loop: CommandLoop) -> None:
        self._execution = execution
        self._loop = loop

    def perform(self, calls: Sequence[AssignedCall], bound: BoundCommand | None) -> list[AnswerReport]:
        """Run the calls and return the final report of each, in this order. Never raises."""
        return self._execution.in_context(self._perform, calls, bound)

    def _perform(self, calls: Sequence[AssignedCall], bound: BoundCommand | None) -> list[AnswerReport]:
        answers: dict[int, AnswerReport] = {}
        ready: list[tuple[AssignedCall, Arguments]] = []
        for call in calls:
            found = self._execution.prepare(call, bound)
            if isinstance(found, dict):
                ready.append((call, found))
            else:
                answers[call.sequence] = found
        for call, _ in ready:
            call.begin()
        if ready and bound is not None:
            self._run(ready, bound, answers)
        return [answers[call.sequence] for call in calls]

    def _run(
        self, ready: list[tuple[AssignedCall, Arguments]], bound: BoundCommand, answers: dict[int, AnswerReport]
    ) -> None:
        calls = [call for call, _ in ready]
        try:
            items = self._items(ready, bound)
        except NotAList as problem:
            answers |= {call.sequence: failure.failure(call, "adapter_error", str(problem)) for call in calls}
            return
        except BaseException as error:
            if self._execution.forked:
                end_fork(error)
            if len(ready) == 1 or not bound.idempotent or not isinstance(error, Exception | asyncio.CancelledError):
                answers |= {call.sequence: ended_by(call, error) for call in calls}
                return
        else:
            answers |= {call.sequence: _answer(call, item) for call, item in zip(calls, items, strict=True)}
            return
        finally:
            if self._execution.forked:
                end_fork()
        answers |= {call.sequence: failure.stopped(call) for call in calls if call.cancelled}
        left = [one for one in ready if one[0].sequence not in answers]
        middle = len(ready) // 2
        for half in (left[:middle], left[middle:]):
            if half:
                self._run(half, bound, answers)

    def _items(self, ready: list[tuple[AssignedCall, Arguments]], bound: BoundCommand) -> list[Any]:
        signature = bound.signature
        columns: dict[str, list[Any]] = {
            name: [given[name] if name in given else signature.defaults[name] for _, given in ready]
            for name in signature.checkers
        }
        calls = [call for call, _ in ready]
        if signature.context:
            columns[signature.context] = [Context(call, self._execution.reports) for call in calls]
        returned = bound.method(**columns)
        if isinstance(returned, Coroutine):
            returned = self._loop.run(_await(calls, returned))
        return items_of(returned, len(ready), calls[0].command)


async def _await(calls: Sequence[AssignedCall], coroutine: Awaitable[Any]) -> Any:
    watch = BatchWatch(calls)
    try:
        return await coroutine
    finally:
        watch.close()


class BatchWatch:
    """Cancels the task of an async batch once every one of its calls should stop."""

    def __init__(self, calls: Sequence[AssignedCall]) -> None:
        self._calls = calls
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._asked = False
        self._timer: asyncio.TimerHandle | None = None
        for call in calls:
            call.watch(self._on_change)
        self._check()

    def _on_change(self) -> None:
        self._loop.call_soon_threadsafe(self._check)

    def _check(self) -> None:
        if self._asked:
            return
        if all(call.cancelled for call in self._calls) and self._task is not None:
            self._asked = True
            self._task.cancel()
            return
        if self._timer is not None:
            self._timer.cancel()
        left = max(call.remaining for call in self._calls if not call.cancelled)
        # A loop may fire a timer one clock tick early, before the deadline has passed.
        self._timer = self._loop.call_later(left + 0.001, self._check) if left != float("inf") else None

    def close(self) -> None:
        self._asked = True
        for call in self._calls:
            call.watch(None)
        if self._timer is not None:
            self._timer.cancel()


def items_of(returned: Any, count: int, command: str) -> list[Any]:
    """The results of a batch. Raises NotAList if there is not one for each call.

    >>> items_of((1, 2), 2, "run")
    [1, 2]
    >>> items_of({"a": 1}, 1, "run")
    Traceback (most recent call last):
        ...
    snakepit.workers.runtime.batches.NotAList: run returned dict; a batch returns a list with one result for each call
    """
    if not isinstance(returned, NO_LIST) and hasattr(type(returned), "__len__") and hasattr(type(returned), "__iter__"):
        items = list(returned)
        if len(items) == count:
            return items
        raise NotAList(f"{command} returned {len(items)} results for a batch of {count} calls; return one for each")
    kind = type(returned).__name__
    raise NotAList(f"{command} returned {kind}; a batch returns a list with one result for each call")


def _answer(call: AssignedCall, item: Any) -> AnswerReport:
    if isinstance(item, BaseException):
        return ended_by(call, item)
    try:
        return result(call, item)
    except BaseException as error:
        return ended_by(call, error)

"""What a test sets in place of commands: an answer for a command, or an error of the broker for its calls."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from snakepit.pools.broker.errors import ERRORS, BrokerError, from_code

ANY = "*"  # in place of a pool or a command: all of them


@dataclass(frozen=True, slots=True)
class Fake:
    """The answer of a command: a value, an exception to raise, or a function of the checked arguments."""

    value: Any

    def takes(self, name: str) -> bool:
        """Whether a function has this parameter; for that of the Context, which callers do not pass."""
        try:
            return callable(self.value) and name in inspect.signature(self.value).parameters
        except (TypeError, ValueError):  # a builtin without a signature
            return False

    def answer(self, arguments: Mapping[str, Any], *, streams: bool) -> Any:
        value = self.value
        if isinstance(value, BaseException):
            raise value
        if callable(value):
            return value(**arguments)
        if streams and isinstance(value, list | tuple):
            return _each(value)
        return value

    def answer_each(self, columns: Mapping[str, list[Any]]) -> list[Any]:
        """The answer to each call of a batch; an exception is that of its call."""
        answers = []
        for row in zip(*columns.values(), strict=True):
            try:
                answers.append(self.answer(dict(zip(columns, row, strict=True)), streams=False))
            except Exception as error:
                answers.append(error)
        if any(map(inspect.isawaitable, answers)):
            raise TypeError("the answer of a command with batch= is a value, an exception or a plain function")
        return answers


def _each(values: list[Any] | tuple[Any, ...]) -> Iterator[Any]:
    yield from values


@dataclass(slots=True)
class PlannedFailure:
    """An error that the broker gives to the calls of a command, without running it."""

    error: BrokerError
    left: int | None  # calls that still get it; None: all


class Fakes:
    """The fakes and failures of one test; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, str], Fake] = {}
        self._failures: dict[tuple[str, str], PlannedFailure] = {}

    def set_answer(self, pool: str, command: str, value: Any) -> None:
        with self._lock:
            self._failures.pop((pool, command), None)
            self._answers[pool, command] = Fake(value)

    def set_failure(self, pool: str, command: str, error: BrokerError, times: int | None) -> None:
        with self._lock:
            self._failures[pool, command] = PlannedFailure(error, times)

    def clear(self) -> None:
        with self._lock:
            self._answers.clear()
            self._failures.clear()

    def find(self, pool: str, command: str) -> Fake | None:
        return self._answers.get((pool, command))

    def commands_of(self, pool: str) -> list[str]:
        with self._lock:
            return [command for name, command in self._answers if name == pool]

    def take_failure(self, pool: str, command: str) -> BrokerError | None:
        """The error of a call that is made now."""
        with self._lock:
            for key in ((pool, command), (pool, ANY), (ANY, ANY)):
                failure = self._failures.get(key)
                if failure is None or failure.left == 0:
                    continue
                if failure.left is not None:
                    failure.left -= 1
                error = failure.error
                # A copy for each call: an exception that is raised twice mixes up its tracebacks.
                return from_code(error.code, error.message, error.outcome, error.details, error.retry_after)
        return None


def error_of(error: str | BrokerError | type[BrokerError]) -> BrokerError:
    """The error for a code, a class or an instance.

    >>> error_of("queue_full").code, error_of(from_code("worker_lost")).outcome
    ('queue_full', 'unknown')
    >>> error_of("queue_ful")
    Traceback (most recent call last):
        ...
    ValueError: error: 'queue_ful' is not an error code; use one of ...
    """
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, type) and issubclass(error, BrokerError):
        return error()
    if error in ERRORS:
        return from_code(str(error))
    raise ValueError(f"error: {error!r} is not an error code; use one of {', '.join(sorted(ERRORS))}")

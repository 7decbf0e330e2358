"""The calls that a test's code has made, and assertions about them.

>>> calls = Calls()
>>> calls.assert_called_with("digits", "classify", pixels=[0.0])
Traceback (most recent call last):
    ...
AssertionError: digits.classify(pixels=[0.0]) was not called. There were no calls.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from snakepit.pools.broker.messages import Request
from snakepit.pools.client.arguments import Options, encode
from snakepit.testing.passing import copied
from snakepit.workers.buffers import Incoming, Outgoing
from snakepit.workers.schema.signature import InvalidArguments, decode

SHOWN = 10  # calls in a message
LONGEST = 200  # characters of one call in a message


@dataclass(frozen=True, slots=True)
class MadeCall:
    """One call as the broker received it. `arguments` are in their JSON form; bytes are bytes."""

    pool: str
    command: str
    arguments: Mapping[str, Any]
    timeout: float | None = None  # seconds; None: the caller gave none
    priority: int = 0
    streams: bool = False  # the caller reads chunks
    affinity: str = ""

    def __str__(self) -> str:
        return _shown(self.pool, self.command, self.arguments)


class Calls:
    """A sequence of the calls, the oldest first. Jobs, retries and calls that fail are among them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: list[MadeCall] = []

    def add(self, request: Request) -> None:
        call = MadeCall(
            request.pool,
            request.command,
            _read(
                request.arguments,
                {name: bytes(data) for name, data in request.attachments.items()},
                copied(request.buffers.descriptors) if request.buffers else None,
            ),
            request.timeout or None,
            request.priority,
            request.credit > 0,
            request.affinity,
        )
        with self._lock:
            self._made.append(call)

    def clear(self) -> None:
        """Discard the calls so far."""
        with self._lock:
            self._made.clear()

    def __len__(self) -> int:
        return len(self._made)

    def __iter__(self) -> Iterator[MadeCall]:
        return iter(tuple(self._made))

    def __getitem__(self, at: int) -> MadeCall:
        return self._made[at]

    def of(self, pool: str, command: str) -> list[MadeCall]:
        """The calls of one command."""
        return [call for call in self if (call.pool, call.command) == (pool, command)]

    def assert_called(self, pool: str, command: str, /, *, times: int | None = None) -> None:
        """Fail unless the command was called; exactly `times` times, where that is given."""
        found = len(self.of(pool, command))
        if times is None and not found:
            raise AssertionError(f"{pool}.{command} was not called. {self._summary()}")
        if times is not None and found != times:
            raise AssertionError(f"{pool}.{command} was called {found} times, not {times}. {self._summary()}")

    def assert_called_with(
        self, pool: str, command: str, arguments: Mapping[str, Any] | None = None, /, **more: Any
    ) -> None:
        """Fail unless some call of the command had exactly these arguments, written as a caller writes them."""
        expected = _as_sent(pool, command, arguments, more)
        if not any(call.arguments == expected for call in self.of(pool, command)):
            raise AssertionError(f"{_shown(pool, command, expected)} was not called. {self._summary()}")

    def assert_called_once_with(
        self, pool: str, command: str, arguments: Mapping[str, Any] | None = None, /, **more: Any
    ) -> None:
        """As `assert_called_with`, and the command must have no other call."""
        self.assert_called(pool, command, times=1)
        self.assert_called_with(pool, command, arguments, **more)

    def assert_not_called(self, pool: str, command: str = "", /) -> None:
        """Fail if the command was called, or any command of the pool."""
        found = [call for call in self if call.pool == pool and command in ("", call.command)]
        if found:
            name = f"{pool}.{command}" if command else pool
            raise AssertionError(f"{name} was called {len(found)} times. {self._summary()}")

    def _summary(self) -> str:
        made = [*self]
        if not made:
            return "There were no calls."
        shown = "\n  ".join(map(str, made[-SHOWN:]))
        return f"The {'last ' if len(made) > SHOWN else ''}calls were:\n  {shown}"


def _as_sent(
    pool: str, command: str, arguments: Mapping[str, Any] | None, more: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The arguments in the form that the broker receives, through the client's own encoder."""
    call = encode(pool, command, arguments, more, Options())
    return _read(call.arguments or b"{}", call.attachments or {}, call.buffers)


def _read(
    arguments: bytes, attachments: Mapping[str, bytes], buffers: Incoming | Outgoing | None = None
) -> Mapping[str, Any]:
    """The arguments as the worker gets them; `buffers` has their large parts."""
    try:
        return decode(arguments or b"{}", attachments, cast(Incoming, buffers))
    except InvalidArguments:  # nested too deeply: the worker refuses it
        return {"$unreadable": arguments}


def _shown(pool: str, command: str, arguments: Mapping[str, Any]) -> str:
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    text = f"{pool}.{command}({given})"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"

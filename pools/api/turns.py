"""Turns of the requests in a web process: at most AT_ONCE of one key, user or address compute at the same time.

A web process has one event loop and one interpreter lock, so all requests that arrive wait for one another. Without
turns, a key with a hundred requests in flight makes each request of another key wait for a hundred.

    body complete ─▶ turn ─▶ computes ─▶ waits for the broker: no turn ─▶ turn ─▶ computes ─▶ the response is sent
                      └ AT_ONCE requests of this name have one: waits, in order of arrival

A stream gives its turn back when its response begins, and takes one for each read of the database. While several names
send requests, each has WHILE_SHARED: a thread that computes takes the interpreter lock from the others for 5 ms.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeVar

AT_ONCE = 2  # requests of one name that compute at the same time, while no other name sends requests
WHILE_SHARED = 1  # the same, within SHARED_SECONDS after requests of another name
SHARED_SECONDS = 1.0
LONGEST_TURN = 0.5  # seconds after which a request that waits for something else has no turn any more

Scope = dict[str, Any]
Answer = TypeVar("Answer")


class _Lane:
    """The requests of one name."""

    def __init__(self) -> None:
        self.turns = 0
        self.waiting: deque[asyncio.Future[None]] = deque()


class Turn:
    """The turn of one request. It may give it back and take another one."""

    def __init__(self, turns: Turns, name: str) -> None:
        self._turns = turns
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.TimerHandle | None = None  # set while this request has a turn

    async def take(self) -> None:
        await self._turns.enter(self._name)
        self._end = self._loop.call_later(LONGEST_TURN, self.give)

    def give(self) -> None:
        """Give the turn to the next request of this name; without a turn, do nothing."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
            self._turns.leave(self._name)

    async def without_turn(self, awaited: Awaitable[Answer]) -> Answer:
        """Wait without a turn."""
        if self._end is None or asyncio.get_running_loop() is not self._loop:
            return await awaited
        self.give()
        try:
            answer = await awaited
        except Exception:
            await self.take()
            raise
        await self.take()
        return answer

    async def within(self, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Compute with a turn. Without one, take it and give it back."""
        if self._end is not None or asyncio.get_running_loop() is not self._loop:
            return await work()
        await self.take()
        try:
            return await work()
        finally:
            self.give()


class Turns:
    """The turns of all names on one event loop. A name is that of a key, a user or an address."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._latest = ""  # the name of the newest request
        self._shared_until = 0.0  # by the time of the loop

    async def enter(self, name: str) -> None:
        """Wait until a request of this name may compute."""
        loop = asyncio.get_running_loop()
        if name != self._latest:
            self._shared_until = loop.time() + SHARED_SECONDS if self._latest else 0.0
            self._latest = name
        lane = self._lanes.setdefault(name, _Lane())
        if lane.turns < self._most():
            lane.turns += 1
            return
        waiter = loop.create_future()
        lane.waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it has the turn already
                self.leave(name)
            raise

    def leave(self, name: str) -> None:
        lane = self._lanes[name]
        lane.turns -= 1
        while lane.waiting and lane.turns < self._most():
            waiter = lane.waiting.popleft()
            if not waiter.done():  # else its request was cancelled
                lane.turns += 1
                waiter.set_result(None)
        if not lane.turns:
            del self._lanes[name]

    def _most(self) -> int:
        return WHILE_SHARED if asyncio.get_running_loop().time() < self._shared_until else AT_ONCE

    async def run(self, application: Any, name: str, scope: Scope, receive: Any, send: Any) -> None:
        """Run an ASGI application, with a turn from the end of the request's body to the end of the response."""
        turn, began = Turn(self, name), False

        async def received() -> Any:
            nonlocal began
            message = await receive()
            if not began and not message.get("more_body", False):
                began = True
                if message["type"] == "http.request":  # else the client has gone
                    await turn.take()
            return message

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start" and not _is_whole(message):
                turn.give()
            await send(message)

        outer = _current.set(turn)
        try:
            await application(scope, received, sent)
        finally:
            _current.reset(outer)
            turn.give()


def _is_whole(start: Any) -> bool:
    """Whether the response that begins with this message is no stream: then it has a length."""
    return any(name.lower() == b"content-length" for name, _ in start.get("headers", ()))


_current: ContextVar[Turn | None] = ContextVar("snakepit_turn", default=None)


async def without_turn(awaited: Awaitable[Answer]) -> Answer:
    """Wait for something outside of this process. The request gives its turn back meanwhile."""
    turn = _current.get()
    return await (turn.without_turn(awaited) if turn else awaited)


async def within(work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Compute with a turn, also after the response of this request has begun."""
    turn = _current.get()
    return await (turn.within(work) if turn else work())

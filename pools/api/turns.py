"""Turns of the requests in a web process: at most AT_ONCE of one key, user or address compute at the same time.

A web process has one event loop and one interpreter lock, so all requests that arrive wait for one another. Without
turns, a key with a hundred requests in flight makes each request of another key wait for a hundred.

    body complete ─▶ turn ─▶ computes ─▶ waits for the broker: no turn ─▶ turn ─▶ computes ─▶ the response begins
                      └ AT_ONCE requests of this name have one: waits, in order of arrival
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Any, TypeVar

AT_ONCE = 2  # requests of one name that compute at the same time
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

    async def aside(self, awaited: Awaitable[Answer]) -> Answer:
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


class Turns:
    """The turns of all names on one event loop. A name is that of a key, a user or an address."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}

    async def enter(self, name: str) -> None:
        """Wait until a request of this name may compute."""
        lane = self._lanes.setdefault(name, _Lane())
        if lane.turns < AT_ONCE:
            lane.turns += 1
            return
        waiter = asyncio.get_running_loop().create_future()
        lane.waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it has the turn already
                self.leave(name)
            raise

    def leave(self, name: str) -> None:
        lane = self._lanes[name]
        while lane.waiting:
            waiter = lane.waiting.popleft()
            if not waiter.done():  # else its request was cancelled
                waiter.set_result(None)
                return
        lane.turns -= 1
        if not lane.turns:
            del self._lanes[name]

    async def run(self, application: Any, name: str, scope: Scope, receive: Any, send: Any) -> None:
        """Run an ASGI application, with a turn from the end of the request's body to the begin of the response."""
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
            if message["type"] == "http.response.start":
                turn.give()
            await send(message)

        outer = _current.set(turn)
        try:
            await application(scope, received, sent)
        finally:
            _current.reset(outer)
            turn.give()


_current: ContextVar[Turn | None] = ContextVar("snakepit_turn", default=None)


async def aside(awaited: Awaitable[Answer]) -> Answer:
    """Wait for something outside of this process. The request gives its turn back meanwhile."""
    turn = _current.get()
    return await (turn.aside(awaited) if turn else awaited)

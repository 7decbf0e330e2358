"""Calls whose replies go to a function as they arrive: one thread follows many calls, without an event loop of its own.

the thread that runs the connections: receive(reply) ─▶ a queue of the caller ─▶ the caller's thread: call.read(reply)

A reply is decoded by `read`, so that the connections' thread only passes it on. A command that streams waits while it
is a window of chunks ahead of what was read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client.address import Target
from snakepit.pools.client.arguments import EncodedCall
from snakepit.pools.client.call_messages import exception
from snakepit.pools.client.pending import Item, SentCall
from snakepit.pools.client.streams import Event, StreamReader

Receive = Callable[[Item], None]  # must neither wait nor raise


class ListenedCall(StreamReader):
    """One call. `receive` gets its replies, the last of which is the result or an error; nothing after `close`."""

    runs_loop = False

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._closed = self._over = False
        self._timer: asyncio.TimerHandle | None = None

    def send(self, target: Target, call: EncodedCall) -> None:
        """Send the call. It raises nothing of a broker: such an error is received."""
        self._over = False
        try:
            super().__init__(target, call, self, only_chunks=False)
        except BrokerError as error:
            self.fail(error)
            return
        sent = self._sent
        assert sent is not None, "it was sent"
        if self._closed:  # by another thread, before this one had sent it
            sent.cancel()
        elif sent.deadline is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: `fail` has been called
                sent.session.loop.call_soon_threadsafe(self._watch, sent)

    def read(self, item: Item) -> Event | None:
        """What was received, for the caller; None: there is nothing in it yet. Raises an error of the call."""
        if isinstance(item, BrokerError):
            raise item
        wanted, found = self._read(item)
        return found if wanted else None

    def close(self) -> None:
        """Cancel the call at the broker, if it runs."""
        self._closed = self._over = True
        self._leave()

    # On the thread that runs the connections.

    def deliver(self, kind: str, reply: Any) -> None:
        if kind == "error":
            self.fail(exception(reply.error))
            return
        if kind in ("packed", "result"):
            self._end_watch()
        self._pass_on((kind, reply))

    def fail(self, error: BrokerError) -> None:
        self._end_watch()
        self._pass_on(error)

    def forked(self, error: BrokerError) -> None:
        """Do nothing: the call belongs to the process that made it."""

    def discard(self) -> None:
        """Do nothing: `receive` has what has come."""

    def _pass_on(self, item: Item) -> None:
        if not self._closed:
            self._receive(item)

    def _watch(self, sent: SentCall) -> None:
        if sent is self._sent and not self._over and (remaining := sent.remaining()) is not None:
            self._timer = sent.session.loop.call_later(remaining, self._expire, sent)

    def _expire(self, sent: SentCall) -> None:
        if sent.cancel():
            self.fail(sent.overdue())

    def _end_watch(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()  # it has this call, and would keep its arguments until the deadline
            self._timer = None

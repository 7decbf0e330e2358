"""Calls that wait for their replies: in a thread, in an event loop, or behind a Future."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
import weakref
from collections import deque
from concurrent.futures import Future
from typing import Any

from snakepit.pools.broker.errors import NOT_STARTED, UNKNOWN, BrokerError, BrokerUnreachable, DeadlineExceeded
from snakepit.pools.client import loop_thread as background
from snakepit.pools.client.address import Target
from snakepit.pools.client.answers import exception, value_of
from snakepit.pools.client.arguments import Call
from snakepit.pools.client.session import Pending, Session, session_for
from snakepit.workers.transport.loop_owner import LoopOwner

GRACE = 1.0  # seconds after the deadline in which the broker's own word about it may come
ATTEMPTS = 5  # sessions that may be lost, one after the other, before a call that never left is given up

Item = tuple[str, Any] | BrokerError  # a Reply, or Packed, with its kind


class Ticket:
    """The sender's side of a call: the session that carries it, its number there, and its deadline."""

    __slots__ = ("deadline", "ref", "session")

    def __init__(self, target: Target, call: Call, pending: Pending) -> None:
        timeout = call.timeout
        self.deadline = time.monotonic() + timeout + GRACE if timeout else None
        for _ in range(ATTEMPTS):
            self.session: Session = session_for(target)
            self.ref = self.session.send(call, pending)
            if self.ref:
                return
        raise BrokerUnreachable(f"The broker at {target} ends each session at once.", outcome=NOT_STARTED)

    def cancel(self) -> bool:
        return self.session.cancel(self.ref)

    def remaining(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def overdue(self) -> DeadlineExceeded:
        """The broker is silent beyond the deadline: let go of the call and say so."""
        self.cancel()
        return DeadlineExceeded(
            f"The broker at {self.session.target} said nothing until {GRACE:g} s after the call's deadline.",
            outcome=UNKNOWN,
        )


class ThreadPending:
    """Replies for a thread that waits; `take` is the only thing that blocks."""

    __slots__ = ("_items", "_loop_owner")

    comes_to_loop = True

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._loop_owner: LoopOwner | None = None  # while the waiting thread may run its loop

    def deliver(self, kind: str, reply: Any) -> None:
        self._put((kind, reply))

    def fail(self, error: BrokerError) -> None:
        self._put(error)

    def _put(self, item: Item) -> None:
        self._items.put(item)
        if self._loop_owner is not None:
            self._loop_owner.leave()  # whoever runs the loop asks whether this was what it waits for

    def _has_news(self) -> bool:
        return not self._items.empty()

    def forked(self, error: BrokerError) -> None:
        # The parent's thread may have been inside the old queue at the moment of the fork.
        self._items = queue.SimpleQueue()
        self._items.put(error)

    def take(self, ticket: Ticket) -> tuple[str, Any]:
        """The next reply; an error that was not sent by the broker is raised."""
        try:
            if self._items.empty():
                self._loop_owner = ticket.session.loop_owner
                ticket.session.wait(self._has_news, ticket.remaining())
                self._loop_owner = None
            item = self._items.get(timeout=ticket.remaining())
        except queue.Empty:
            raise ticket.overdue() from None
        except BaseException:  # KeyboardInterrupt, or whatever a signal handler raises
            ticket.cancel()
            raise
        if isinstance(item, BrokerError):
            raise item
        return item


class Mailbox:
    """Carries replies to one event loop: one wake-up for all that came since the last one."""

    __slots__ = ("_items", "_loop", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # the mailbox is kept under its loop; it must not keep the loop alive
        self._items: deque[tuple[LoopPending, Item]] = deque()
        self._woken = False

    def post(self, pending: LoopPending, item: Item) -> None:
        self._items.append((pending, item))
        if not self._woken:
            self._woken = True
            loop = self._loop()
            if loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                    loop.call_soon_threadsafe(self._open)

    def _open(self) -> None:
        self._woken = False
        while self._items:
            pending, item = self._items.popleft()
            pending.arrive(item)


_mailboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = weakref.WeakKeyDictionary()
_mailboxes_lock = threading.Lock()


def _forget() -> None:
    global _mailboxes_lock
    _mailboxes_lock = threading.Lock()  # another thread may have held it when the process forked


background.after_fork(_forget)


def mailbox() -> Mailbox:
    """The running event loop's mailbox."""
    loop = asyncio.get_running_loop()
    box = _mailboxes.get(loop)
    if box is None:
        with _mailboxes_lock:
            box = _mailboxes.setdefault(loop, Mailbox(loop))
    return box


class LoopPending:
    """Replies for a task of the caller's own event loop."""

    __slots__ = ("_box", "_items", "_waiter")

    comes_to_loop = False

    def __init__(self) -> None:
        self._box = mailbox()
        self._items: deque[Item] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def deliver(self, kind: str, reply: Any) -> None:
        self._box.post(self, (kind, reply))

    def fail(self, error: BrokerError) -> None:
        self._box.post(self, error)

    def forked(self, error: BrokerError) -> None:
        """Nothing to do: no event loop of the parent runs in the child."""

    def arrive(self, item: Item) -> None:
        self._items.append(item)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self, ticket: Ticket) -> tuple[str, Any]:
        """The next reply; cancelling the task that waits here cancels the call."""
        if not self._items:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            remaining = ticket.remaining()
            timer = None if remaining is None else loop.call_later(remaining, self._wake)
            try:
                await self._waiter
            except asyncio.CancelledError:
                ticket.cancel()
                raise
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        if not self._items:
            raise ticket.overdue()
        item = self._items.popleft()
        if isinstance(item, BrokerError):
            raise item
        return item


class CallFuture(Future[Any]):
    """The result of a call that was submitted; `cancel()` cancels the call, also while it runs."""

    comes_to_loop = False

    def __init__(self) -> None:
        super().__init__()
        self._ticket: Ticket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def cancel(self) -> bool:
        if self.cancelled():
            return True
        # Whoever takes the call out of the session's register has the last word: this, or the reply.
        if self._ticket is None or not self._ticket.cancel():
            return False
        super().cancel()
        self.set_running_or_notify_cancel()
        return True

    def carried_by(self, ticket: Ticket) -> None:
        self._ticket = ticket
        if ticket.deadline is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: `fail` has been called
                ticket.session.loop.call_soon_threadsafe(self._watch)

    def deliver(self, kind: str, reply: Any) -> None:
        if kind in ("packed", "result"):
            try:
                value = value_of(reply if kind == "packed" else reply.result)
            except ValueError as error:
                self.fail(BrokerError(f"The result cannot be read: {error}"))
                return
            self._end_watch()
            self.set_running_or_notify_cancel()
            self.set_result(value)
        elif kind == "error":
            self.fail(exception(reply.error))

    def fail(self, error: BrokerError) -> None:
        self._end_watch()
        self.set_running_or_notify_cancel()
        self.set_exception(error)

    def forked(self, error: BrokerError) -> None:
        """Nothing to do: a Future belongs to the process that made it."""

    def _watch(self) -> None:
        assert self._ticket is not None
        remaining = self._ticket.remaining()
        if remaining is not None and not self.done():
            self._timer = self._ticket.session.loop.call_later(remaining, self._expire)

    def _expire(self) -> None:
        assert self._ticket is not None
        if self._ticket.cancel():
            self.fail(self._ticket.overdue())

    def _end_watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

"""Calls that wait for their replies: in a thread, in an event loop, or as a Future."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import time
import weakref
from collections import deque
from concurrent.futures import Future, InvalidStateError
from typing import Any

from snakepit.pools.broker.errors import NOT_STARTED, UNKNOWN, BrokerError, BrokerUnreachable, DeadlineExceeded
from snakepit.pools.client import stand_in
from snakepit.pools.client.address import Target
from snakepit.pools.client.arguments import EncodedCall
from snakepit.pools.client.call_messages import exception, value_of
from snakepit.pools.client.loop_thread import LoopThread, check_shutdown, current_loop, run_short_step, run_step
from snakepit.pools.client.protocol import Pending
from snakepit.pools.client.session import Session, session_on
from snakepit.workers.transport.loop_owner import LoopOwner

LONGEST_WAIT = 1.0  # seconds of one wait on a queue
# Seconds after the deadline for the broker's own DeadlineExceeded to arrive. Less than the promised second, because a
# thread may have to wait for a processor.
GRACE = 0.8
ATTEMPTS = 5  # sessions that may be lost, one after the other, before a call that was never sent fails

_refs = itertools.count(1)  # of all sessions: a call keeps its number when another session takes it over

Item = tuple[str, Any] | BrokerError  # a Reply, or Packed, with its kind


class Discarded(Exception):
    """The stream was closed, by another thread or task, while this one waited for its next item."""


class SentCall:
    """A call: its number, its session once it is sent, and its deadline."""

    __slots__ = ("_call", "_pending", "_session", "_target", "deadline", "ref")

    def __init__(self, target: Target, call: EncodedCall, pending: Pending) -> None:
        if stand_in.current is not None:
            stand_in.prepare(call.pool)
        timeout = call.timeout
        self.deadline = time.monotonic() + timeout + GRACE if timeout else None
        self.ref = next(_refs)  # before it is sent: a call that an interrupt cuts off there can be cancelled
        self._target, self._call, self._pending = target, call, pending
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        assert self._session is not None, "the call was not sent"
        return self._session

    def send(self) -> None:
        """Send the call; whatever interrupts that also cancels it."""
        try:
            for _ in range(ATTEMPTS):
                loop_thread = current_loop()
                if run_step(loop_thread, self._send_on, loop_thread):
                    return
            raise BrokerUnreachable(f"The broker at {self._target} ends each session immediately.", outcome=NOT_STARTED)
        except BaseException:
            self.cancel()
            raise

    def _send_on(self, loop_thread: LoopThread) -> bool:
        try:
            self._session = session = session_on(loop_thread, self._target)
            return session.send(self.ref, self._call, self._pending)
        except RuntimeError:  # another thread has given the loop up, and it is closed
            if not loop_thread.retired:
                raise
            return False

    def cancel(self) -> bool:
        """Cancel the call at the broker; False when it was not sent, or its last reply has arrived."""
        session = self._session
        return session is not None and run_short_step(session.loop_thread, session.cancel, self.ref)

    def remaining(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def overdue(self) -> DeadlineExceeded:
        """Cancel the call, and return the error of a broker that is silent beyond the deadline."""
        self.cancel()
        return DeadlineExceeded(
            f"The broker at {self.session.target} did not answer until {GRACE:g} s after the call's deadline.",
            outcome=UNKNOWN,
            details={"silent": True},
        )


class ThreadPending:
    """Replies for a thread that waits; only `take` blocks."""

    __slots__ = ("_items", "_loop_owner", "waits")

    runs_loop = True

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Item | Discarded] = queue.SimpleQueue()
        self._loop_owner: LoopOwner | None = None  # while the waiting thread may run its loop
        self.waits = False  # whether a thread is in `take`; it stays so if an exception ends that

    def deliver(self, kind: str, reply: Any) -> None:
        self._items.put((kind, reply))
        if self._loop_owner is not None:
            self._loop_owner.recheck()

    def fail(self, error: BrokerError) -> None:
        self._items.put(error)
        if self._loop_owner is not None:
            self._loop_owner.recheck()

    def discard(self) -> None:
        """Drop what has come, and end `take` of another thread. The session closes what comes later."""
        waited, self._items = self._items, queue.SimpleQueue()
        if self.waits:
            self._items.put(Discarded())
            waited.put(Discarded())
            owner = self._loop_owner
            if owner is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: no thread runs it
                    owner.call_soon(owner.recheck)

    def forked(self, error: BrokerError) -> None:
        # The parent's thread may have been inside the old queue at the moment of the fork.
        self._items = queue.SimpleQueue()
        self._items.put(error)

    def _await_item(self, sent: SentCall) -> Item | Discarded:
        """Wait for the next item in parts. Python handles a signal that comes just before a wait only after it."""
        while True:
            left = sent.remaining()
            try:
                return self._items.get(timeout=LONGEST_WAIT if left is None else min(left, LONGEST_WAIT))
            except queue.Empty:
                if left is not None and left <= LONGEST_WAIT:
                    raise
                loop_thread = sent.session.loop_thread
                run_step(loop_thread, loop_thread.check_descriptors)

    def take(self, sent: SentCall) -> tuple[str, Any]:
        """Return the next reply; raises an error that the broker did not send, and Discarded."""
        try:
            self.waits = True
            if self._items.empty():
                check_shutdown()
                session, remaining = sent.session, sent.remaining() if sent.deadline else None
                self._loop_owner = session.loop_owner
                run_step(session.loop_thread, session.wait, self._items.qsize, remaining)
                self._loop_owner = None
            # No other thread takes them.
            item = self._await_item(sent) if self._items.empty() else self._items.get_nowait()
            self.waits = False
        except queue.Empty:
            raise sent.overdue() from None
        except BaseException:  # KeyboardInterrupt, or another exception of a signal handler
            sent.cancel()
            raise
        if isinstance(item, BrokerError | Discarded):
            raise item
        return item


class LoopInbox:
    """Passes replies to one event loop of the caller: one wake-up for all that arrived since the last one."""

    __slots__ = ("_items", "_loop", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # the inbox is kept under its loop; it must not keep the loop alive
        self._items: deque[tuple[LoopPending, Item]] = deque()
        self._woken = False

    def put(self, pending: LoopPending, item: Item, *, wake: bool = False) -> None:
        """`wake`: also when a wake-up is under way. An interrupt may have come before that was sent."""
        self._items.append((pending, item))
        if wake or not self._woken:
            self._woken = True
            loop = self._loop()
            if loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: no task waits any more
                    loop.call_soon_threadsafe(self._pass_on)

    def _pass_on(self) -> None:
        self._woken = False
        items = self._items
        try:
            while items:
                pending, item = items[0]
                items.popleft()
                pending.arrive(item)
        except BaseException:  # of a signal handler: end the call whose reply may be lost, and go on with the others
            self.put(pending, BrokerUnreachable("The delivery of a reply was interrupted.", outcome=UNKNOWN), wake=True)
            raise


_inboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopInbox] = weakref.WeakKeyDictionary()


def inbox() -> LoopInbox:
    """Return the running event loop's inbox."""
    loop = asyncio.get_running_loop()
    found = _inboxes.get(loop)
    if found is None:
        found = _inboxes.setdefault(loop, LoopInbox(loop))  # no lock: only one thread runs this loop
    return found


class LoopPending:
    """Replies for a task of the caller's own event loop."""

    __slots__ = ("_inbox", "_is_read", "_items", "_waiter")

    runs_loop = False

    def __init__(self) -> None:
        self._inbox = inbox()
        self._items: deque[Item] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_read = True

    def deliver(self, kind: str, reply: Any) -> None:
        self._inbox.put(self, (kind, reply))

    def fail(self, error: BrokerError) -> None:
        self._inbox.put(self, error, wake=True)

    def forked(self, error: BrokerError) -> None:
        """Nothing to do: no event loop of the parent runs in the child."""

    def arrive(self, item: Item) -> None:
        if self._is_read:
            self._items.append(item)
            self._wake()

    @property
    def waits(self) -> bool:
        """Whether a task is in `take`."""
        return self._waiter is not None

    def discard(self) -> None:
        """Drop what has come, and what will, and end `take` of another task."""
        self._is_read = False
        self._items.clear()
        if self._waiter is not None:
            # Not directly: a finalizer may come on another thread.
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._waiter.get_loop().call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self, sent: SentCall) -> tuple[str, Any]:
        """Return the next reply; cancelling the task that waits here cancels the call. Raises Discarded, too."""
        if not self._items:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            remaining = sent.remaining()
            timer = None if remaining is None else loop.call_later(remaining, self._wake)
            try:
                await self._waiter
            except BaseException:  # CancelledError, GeneratorExit, or what else ends the task
                sent.cancel()
                raise
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        if not self._is_read:
            raise Discarded
        if not self._items:
            raise sent.overdue()
        item = self._items.popleft()
        if isinstance(item, BrokerError):
            raise item
        return item


class CallFuture(Future[Any]):
    """The result of a call that was submitted; `cancel()` cancels the call, also while it runs."""

    runs_loop = False

    def __init__(self) -> None:
        super().__init__()
        self._sent: SentCall | None = None
        self._timer: asyncio.TimerHandle | None = None

    def cancel(self) -> bool:
        if self.cancelled():
            return True
        # Either this cancel or the reply takes the call out of the session's register, and that one counts.
        sent = self._sent
        if sent is None or not sent.cancel():
            return False
        super().cancel()
        self.set_running_or_notify_cancel()
        self._end_watch()
        return True

    def sent_as(self, sent: SentCall) -> None:
        if self.done():
            return
        self._sent = sent
        if sent.deadline is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: `fail` has been called
                sent.session.loop.call_soon_threadsafe(self._watch)

    def deliver(self, kind: str, reply: Any) -> None:
        if kind in ("packed", "result"):
            try:
                value = value_of(reply if kind == "packed" else reply.result)
            except BrokerError as error:
                self.fail(error)
                return
            except ValueError as error:
                self.fail(BrokerError(f"The result cannot be read: {error}"))
                return
            self._end_watch()
            with contextlib.suppress(InvalidStateError):  # another thread has given the connection up
                if not self.done():
                    self.set_running_or_notify_cancel()
                self.set_result(value)
        elif kind == "error":
            self.fail(exception(reply.error))

    def fail(self, error: BrokerError) -> None:
        if self.done():  # an interrupted connection ends also what it may have delivered
            return
        self._end_watch()
        with contextlib.suppress(InvalidStateError):  # it was delivered at this moment
            if not self.running():  # an interrupt may have come in the middle of `deliver`
                self.set_running_or_notify_cancel()
            self.set_exception(error)

    def forked(self, error: BrokerError) -> None:
        """Nothing to do: a Future belongs to the process that made it."""

    def _watch(self) -> None:
        if self._sent is None:  # it is done
            return
        remaining = self._sent.remaining()
        if remaining is not None and not self.done():
            self._timer = self._sent.session.loop.call_later(remaining, self._expire)

    def _expire(self) -> None:
        sent = self._sent
        if sent is not None and sent.cancel():
            self.fail(sent.overdue())

    def _end_watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._sent = None  # it has this Future: the cycle would keep a large result until the garbage is collected

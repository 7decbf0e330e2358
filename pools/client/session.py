"""One stream to one broker that carries all calls of this process.

    any thread: send, cancel, grant ─▶ outbox ──(one wake-up)─▶ loop thread: flush ─▶ Connection
    any thread: Pending.deliver ◀── dispatch by ref ◀────────── loop thread ◀── Connection

"Loop thread" means the thread that runs the loop at the moment (loop_owner.py). A session connects once; the next call
after its loss makes another one. A call takes no lock here. Two orders make that safe, and both must stay:
- `wake` appends first and looks at `_woken` second; `flush` clears it first and takes from the outbox second.
- `send` registers first and looks at `lost` second; `_lose` sets it first and empties the register second.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError, Message

from snakepit.pools.broker.errors import NOT_STARTED, UNKNOWN, BrokerError, BrokerUnreachable, ShuttingDown
from snakepit.pools.client import loop_thread as background
from snakepit.pools.client import stand_in
from snakepit.pools.client.address import Target
from snakepit.pools.client.arguments import EncodedCall
from snakepit.pools.client.call_messages import names_parts, next_message, unpack
from snakepit.pools.client.connection import Connection, connect, copy_of, is_of_connection, not_opened, typed
from snakepit.pools.client.loop_thread import FORKED, LoopThread, run_short_step, running_loop
from snakepit.pools.client.protocol import Pending
from snakepit.pools.wire.broker_pb2 import Cancel, Credit, Replies, Request
from snakepit.workers.transport import LOOP_OWNER, is_on
from snakepit.workers.transport.message_stream import SETTLE_TURNS

LAST_REPLIES = frozenset({"result", "error"})
CLOSED = "The connection to the broker was closed by this process."
GOODBYE, END_GRACE = 0.25, 1.0  # seconds for the broker to end the session after our end of it; for all of `end`


class Session:
    """The calls in flight to one broker, and the stream that they travel on."""

    def __init__(self, target: Target, loop_thread: LoopThread) -> None:
        self.target = target
        self.loop_thread = loop_thread
        self.loop_owner = loop_owner = loop_thread.owner()
        self.loop = loop_owner.loop
        self._waiters_run_loop = is_on(LOOP_OWNER)
        self.lost: BrokerError | None = None
        self._pending: dict[int, Pending] = {}
        self._outbox: deque[tuple[int, EncodedCall | Request]] = deque()  # a call with its number; anything else with 0
        self._delivering: Pending | None = None  # taken out of the register, perhaps without its reply yet
        self._successor: Session | None = None
        self._proven = False  # a reply came: this broker serves
        self._woken = False
        self._writer: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._opened = asyncio.Event()
        self._closed: queue.SimpleQueue[None] = queue.SimpleQueue()  # an interrupt cannot leave it locked
        self._task: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        loop_thread.open_sessions.add(self)
        self.loop.call_soon_threadsafe(self._start)
        loop_owner.ensure_running()

    # Called from any thread.

    def send(self, ref: int, call: EncodedCall, pending: Pending) -> bool:
        """Send a call under its number; False when this session was lost before the call left."""
        self._pending[ref] = pending
        self._outbox.append((ref, call))
        if (self.lost is not None or self.loop_thread.retired) and self._pending.pop(ref, None) is not None:
            return False
        self._wake(urgent=not pending.runs_loop)
        return True

    def cancel(self, ref: int) -> bool:
        """Cancel a call at the broker; False when its last reply has arrived already."""
        if self._pending.pop(ref, None) is None:
            return self._successor is not None and self._successor.cancel(ref)
        self._send_request(Request(cancel=Cancel(ref=ref)), urgent=True)
        return True

    def grant(self, ref: int, chunks: int, urgent: bool) -> None:
        """Make room for more chunks of a stream. `urgent`: the caller does not run the loop next."""
        if self._successor is not None:
            self._successor.grant(ref, chunks, urgent)
            return
        self._send_request(Request(credit=Credit(ref=ref, chunks=chunks)), urgent=urgent)

    def end(self) -> None:
        """Close the connection; calls in flight end with `broker_unreachable`."""
        if run_short_step(self.loop_thread, self._begin_end) and running_loop() is not self.loop:
            with contextlib.suppress(queue.Empty):
                self._closed.get(timeout=END_GRACE)
                self._closed.put(None)  # for another thread that waits

    def _begin_end(self) -> bool:
        _drop(self)  # the next call must not travel on a connection that ends, even if this is interrupted
        with contextlib.suppress(RuntimeError, OSError):  # the loop, or what wakes it, is closed: so is the connection
            self.loop.call_soon_threadsafe(self._end)
            self.loop_owner.ensure_running()
            return True
        return False

    def forget(self) -> None:
        """In the child of a fork: end the copies of the parent's calls, which wait on the parent's session."""
        self.lost = BrokerUnreachable(FORKED, outcome=UNKNOWN)
        self._outbox.clear()
        while self._pending:
            self._pending.popitem()[1].forked(self.lost)

    def wait(self, is_done: Callable[[], object], timeout: float | None) -> None:
        """Run the loop on this thread until `is_done`, unless another thread needs it; may return early."""
        is_open = self._connection is not None or self.lost is not None
        if not self._waiters_run_loop or not is_open or running_loop() is not None:
            self.loop_owner.ensure_running()  # the background thread connects: no signal handler can interrupt that
            return
        try:
            self.loop_owner.try_run_until(is_done, timeout, alone=len(self._pending) <= 1)
        except RuntimeError:  # another thread has given the loop up, and it is closed
            if not self.loop_thread.retired:
                raise
        if not is_done():
            self.loop_thread.check_descriptors()
        for session in (self, *self.loop_thread.sessions.values()):
            if session._pending:
                self.loop_owner.ensure_running()
                return

    def end_calls(self, reason: BrokerError) -> None:
        """On any thread, after the loop was given up: end what waits. Only the register is reliable then."""
        self.lost = self.lost or reason
        interrupted = self._delivering
        if interrupted is not None and self.loop_owner.runner == threading.get_ident():  # else it gets its reply
            interrupted.fail(copy_of(reason, UNKNOWN))
        self._fail_all(reason, UNKNOWN)

    def _fail_all(self, reason: BrokerError, outcome: str) -> None:
        unsent = {ref for ref, _ in self._outbox.copy() if ref}
        while self._pending:
            for ref, call in self._pending.copy().items():
                call.fail(copy_of(reason, NOT_STARTED if ref in unsent else outcome))
                self._pending.pop(ref, None)  # last: an interrupt must not lose the call

    def release(self) -> None:
        """On the background thread, after the end of the loop: give back what the session's task did not."""
        self._closed.put(None)
        if self._connection is not None:
            self._connection.reply_socket.close()

    def _send_request(self, request: Request, *, urgent: bool) -> None:
        if self.lost is None:
            self._outbox.append((0, request))
            self._wake(urgent=urgent)

    def _wake(self, *, urgent: bool) -> None:
        if not self._woken:
            self._woken = True
            try:
                self.loop_owner.call_soon(self._flush)
            except RuntimeError:  # the loop is closed: `_lose` reports it
                return
        if urgent:
            self.loop_owner.ensure_running()

    # Called on the loop thread.

    def _start(self) -> None:
        self._task = self.loop.create_task(self._run())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """End the calls of a task that was interrupted where it ends them."""
        if not task.cancelled() and (error := task.exception()) is not None:
            background.retire(self.loop_thread, error)
        elif task is self._task:
            self.loop_thread.open_sessions.discard(self)

    def _end(self) -> None:
        if self._leaving is None:
            self._leaving = self.loop.create_task(self._leave())

    async def _leave(self) -> None:
        """End the session in order, so that the broker does not take it for a crash; bounded in time."""
        assert self._task is not None
        if self._connection is not None and self.lost is None:
            with contextlib.suppress(Exception):  # the connection broke at this moment
                await self._connection.half_close()
                await asyncio.wait({self._task}, timeout=GOODBYE)
        self._task.cancel()

    async def _run(self) -> None:
        try:
            await connect(self.target, self._dispatch, self._serve)
            self._lose(
                BrokerUnreachable(CLOSED if self._leaving else f"The broker at {self.target} ended the session.")
            )
        except asyncio.CancelledError:
            self._lose(BrokerUnreachable(CLOSED), hand_over=False)
            raise
        except Exception as error:  # whatever ends the session ends its calls
            self._lose(typed(error, self.target))
        finally:
            if self._writer is not None:
                self._writer.cancel()
            self._closed.put(None)

    async def _serve(self, connection: Connection) -> None:
        self._connection = connection
        self._opened.set()
        self._flush()
        connection.reply_socket.open(self.loop, self._deliver_last, self._pending)
        await connection.listen()

    def _flush(self) -> None:
        self._woken = False
        connection = self._connection
        if connection is None or self._writer is not None or self.lost is not None:
            return  # sent once the session is open, by the writer, or never
        try:
            if self._proven and connection.hung_up():
                self._writer = self.loop.create_task(self._read_end(connection))
                self._writer.add_done_callback(self._ended)
                return
            rest = b""
            while self._outbox and not rest and connection.writes_now:
                batch = next_message(self._outbox, connection, alone=len(self._pending) <= 1)
                rest = b"" if connection.write_now(batch) else batch
            if rest or self._outbox:
                self._writer = self.loop.create_task(self._write(connection, rest))
                self._writer.add_done_callback(self._ended)
        except Exception as error:
            self._lose(connection.typed(error))
            if not is_of_connection(error) and threading.current_thread() is not self.loop_thread.thread:
                raise  # of a signal handler: the waiter gets it

    async def _read_end(self, connection: Connection) -> None:
        """Let the loop read what the broker sent before it closed the connection: results, and perhaps the reason."""
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)
        self._writer = None
        self._lose(connection.typed(ConnectionResetError("the broker closed it")))

    async def _write(self, connection: Connection, rest: bytes) -> None:
        """Send as the broker makes room; what comes meanwhile waits in the outbox."""
        try:
            if rest:
                await connection.write(rest)
            while self._outbox:
                await connection.settle()
                if self.lost is not None:
                    return
                batch = next_message(self._outbox, connection, alone=len(self._pending) <= 1)
                if not connection.write_now(batch):
                    await connection.write(batch)
        except Exception as error:
            self._lose(connection.typed(error))
        finally:
            self._writer = None

    def _dispatch(self, message: bytes) -> None:
        pending = self._pending
        self._proven = True
        try:
            replies = Replies.FromString(message).replies[:]  # a list, as in workers/transport/server.py
        except DecodeError as error:
            raise ValueError("the broker sent a message that is not a reply") from error
        for reply in replies:
            kind = reply.WhichOneof("reply")
            if kind == "results":  # nearly all of them
                for packed in unpack(reply.results):
                    self._delivering = call = pending.get(packed.ref)  # as in `_deliver_last`, without its call
                    if call is not None:
                        pending.pop(packed.ref, None)
                        call.deliver("packed", packed)
                self._delivering = None
            elif kind is not None:
                if names_parts(kind, reply) and self._connection is not None:
                    self._connection.reply_socket.read_waiting()  # they were sent before this reply
                if kind in LAST_REPLIES:
                    self._deliver_last(reply.ref, kind, reply)
                elif (call := pending.get(reply.ref)) is not None:
                    call.deliver(kind, reply)

    def _deliver_last(self, ref: int, kind: str, reply: Any) -> None:
        self._proven = True
        # Noted first: an interrupt between the register and the delivery must not lose the call.
        self._delivering = self._pending.get(ref)
        call = self._pending.pop(ref, None)
        if call is not None:
            call.deliver(kind, reply)
        self._delivering = None

    def _lose(self, reason: BrokerError, *, hand_over: bool = True) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        _drop(self)
        serves = self._proven and self._leaving is None and not self.loop_thread.retired
        if hand_over and serves and isinstance(reason, BrokerUnreachable | ShuttingDown):
            self._hand_over()
        if (torn := self._delivering) is not None:
            torn.fail(copy_of(reason, UNKNOWN))
        self._fail_all(reason, reason.outcome)
        self._outbox.clear()
        self._opened.set()
        if self._task is not None:
            self._task.cancel()

    def _hand_over(self) -> None:
        """Let a new session send what this one did not: a call need not fail because the broker was restarted.

        Only a session that has served does so: a broker that ends each session immediately would be asked forever.
        """
        calls = [(ref, call) for ref, call in self._outbox if isinstance(call, EncodedCall) and ref in self._pending]
        if not calls:
            return
        self._outbox.clear()
        self._successor = session_on(self.loop_thread, self.target)
        for ref, call in calls:
            if (pending := self._pending.get(ref)) is not None:
                self._successor.adopt(ref, call, pending)
                self._pending.pop(ref, None)  # last: an interrupt must not lose the call

    def adopt(self, ref: int, call: EncodedCall, pending: Pending) -> None:
        self._pending[ref] = pending
        self._outbox.append((ref, call))
        self._wake(urgent=False)

    async def unary(self, method: str, request: Message, timeout: float) -> Any:
        """Call a method other than Session."""
        try:
            async with asyncio.timeout(timeout):
                await self._opened.wait()
        except TimeoutError:
            raise not_opened(self.target, timeout) from None
        if self.lost is not None or self._connection is None:
            raise copy_of(self.lost or BrokerUnreachable(outcome=NOT_STARTED), NOT_STARTED)
        try:
            return await self._connection.unary(method, request, timeout)
        except BrokerUnreachable:
            if self.lost is None:
                raise
            # The session's end has the better reason, such as a wrong token.
            raise copy_of(self.lost, self.lost.outcome) from None


def session_on(loop_thread: LoopThread, target: Target) -> Session:
    """The session with a broker on a loop; a new one if there is none or it was lost."""
    target = stand_in.current or target
    session: Session | None = loop_thread.latest
    if session is not None and session.target is target and session.lost is None:
        return session
    session = loop_thread.sessions.get(target)
    if session is None or session.lost is not None:
        with loop_thread.lock:
            session = loop_thread.sessions.get(target)
            if session is None or session.lost is not None:
                session = loop_thread.sessions[target] = loop_thread.latest = Session(target, loop_thread)
    return session


def end_session(target: Target) -> None:
    """Close the connections to a broker, if there are any."""
    for loop_thread in background.all_loops():
        if session := loop_thread.sessions.get(stand_in.current or target):
            session.end()


def _drop(session: Session) -> None:
    # Without a lock on purpose: this runs on the loop thread. A new session that slips in is not removed.
    loop_thread = session.loop_thread
    if loop_thread.latest is session:
        loop_thread.latest = None
    if loop_thread.sessions.get(session.target) is session:
        loop_thread.sessions.pop(session.target, None)


def _end_all() -> None:
    for session in [one for loop_thread in background.all_loops() for one in loop_thread.sessions.values()]:
        session.end()


atexit.register(_end_all)  # runs before the loop's own end, which was registered earlier

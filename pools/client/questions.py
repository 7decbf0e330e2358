"""Questions to the broker itself (status, commands, ...): one unary method of gRPC each, on a session's connection."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from typing import Any

from google.protobuf.message import Message

from snakepit.pools.broker.errors import UNKNOWN, BrokerError, BrokerUnreachable, DeadlineExceeded
from snakepit.pools.client.address import Target
from snakepit.pools.client.loop_thread import LoopThread, current_loop, run_short_step, run_step
from snakepit.pools.client.pending import GRACE
from snakepit.pools.client.session import Session, session_on

INTERRUPTED = "The connection was interrupted."


class Question:
    """Runs as a task of the session's loop; the asking thread, or its event loop, waits for the answer.

    A queue has the answer, and not a Future: an interrupt cannot leave it locked.
    """

    def __init__(
        self, target: Target, method: str, request: Message, timeout: float,
        answered: asyncio.Future[Any] | None = None,
    ) -> None:  # fmt: skip
        """`answered`: of the running event loop, where that waits."""
        self._target, self._method, self._request, self._timeout = target, method, request, timeout
        self._answered = answered
        self._caller = answered.get_loop() if answered is not None else None
        self._answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._session: Session | None = None
        self._task: asyncio.Task[Any] | None = None

    def send(self) -> None:
        loop_thread = current_loop()
        run_step(loop_thread, self._send_on, loop_thread)

    def wait(self) -> Any:
        """Return the answer; raises its error."""
        bound = self._timeout + self._target.connect_timeout + GRACE
        try:
            value, error = self._answers.get(timeout=bound)
        except queue.Empty:
            self.cancel()
            raise DeadlineExceeded(f"{self._method} was not answered within {bound:g} s.", outcome=UNKNOWN) from None
        if error is not None:
            raise error
        return value

    def cancel(self) -> None:
        """Stop waiting; does nothing once the question is answered."""
        if self._session is not None:
            run_short_step(self._session.loop_thread, self._cancel_on, self._session)

    def end_calls(self, reason: BrokerError) -> None:
        """Called when the loop is given up."""
        self._answer(None, reason)

    def _send_on(self, loop_thread: LoopThread) -> None:
        loop_thread.questions.add(self)
        try:
            self._session = session = session_on(loop_thread, self._target)
            session.loop.call_soon_threadsafe(self._start, session)
            session.loop_owner.ensure_running()
        except RuntimeError:  # another thread has given the loop up, and it is closed
            if not loop_thread.retired:
                raise
        if loop_thread.retired:
            self.end_calls(BrokerUnreachable(INTERRUPTED, outcome=UNKNOWN))

    def _cancel_on(self, session: Session) -> None:
        if self in session.loop_thread.questions:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                session.loop.call_soon_threadsafe(self._stop)
                session.loop_owner.ensure_running()

    # Called on the loop thread.

    def _start(self, session: Session) -> None:
        self._task = session.loop.create_task(session.unary(self._method, self._request, self._timeout))
        self._task.add_done_callback(self._done)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._answer(None, BrokerUnreachable(INTERRUPTED, outcome=UNKNOWN))
        elif (error := task.exception()) is not None:
            self._answer(None, error)
        else:
            self._answer(task.result(), None)

    def _answer(self, value: Any, error: BaseException | None) -> None:
        if self._session is not None:
            self._session.loop_thread.questions.discard(self)
        self._answers.put((value, error))
        if self._caller is not None:
            with contextlib.suppress(RuntimeError):  # the caller's loop is closed
                self._caller.call_soon_threadsafe(self._pass_on)

    def _pass_on(self) -> None:
        if self._answered is None or self._answered.done():
            return
        value, error = self._answers.get_nowait()
        if error is not None:
            self._answered.set_exception(error)
        else:
            self._answered.set_result(value)

"""Runs calls on slots. Knows neither the wire nor how the worker was started.

     I/O thread                     slots (main thread, or N threads)
     assign ──▶ [queue] ──dequeue lock──▶ black box ▶ Execution ▶ outbox
     cancel, credit ──▶ Call
     drain ──▶ STOP behind what is held

The dequeue lock makes the order of beginnings the order of sequences, so that one number in the black box says which
calls were begun. It is not needed for one slot, but one road for both profiles is worth its 50 ns.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from snakepit.workers.call import Call
from snakepit.workers.context import Reports
from snakepit.workers.report import Delivered, Returned
from snakepit.workers.runtime import failure
from snakepit.workers.runtime.event_loop import EventLoop, OwnLoop, SharedLoop
from snakepit.workers.runtime.execution import Execution, Last
from snakepit.workers.schema.commands import Bound


class Begun(Protocol):
    """Where the sequences of begun calls are written; the worker's SharedPage."""

    def begin(self, sequence: int) -> None: ...

    def is_revoked(self, sequence: int) -> bool:
        """Whether the broker took the call back; asked after `begin`."""
        ...


class Idling(Protocol):
    """How a slot waits for its next call; the worker's LoopOwner."""

    def recheck(self) -> None: ...

    def run_until(self, is_done: Callable[[], bool]) -> None: ...

    def run_once(self) -> None: ...


class Delivering(Protocol):
    """Brings results to callers; the worker's DirectReplySender."""

    def deliver(self, call: Call, last: Last) -> Last | Delivered: ...


BATCH_CALLS = 32  # that were run without a look at the loop, at most
BATCH_SECONDS = 0.001  # for which answers may wait while other calls that are there already run; only idempotent ones


class Runtime:
    """The calls of one worker.

    `slots` 0 is the process profile: one slot, on the thread that calls `run`. Otherwise `run` starts that many
    threads and returns when they have ended.
    """

    def __init__(
        self,
        reports: Reports,
        begun: Begun,
        *,
        slots: int = 0,
        idling: Idling | None = None,
        direct_reply: Delivering | None = None,
    ) -> None:
        self._reports = reports
        self._direct_reply = direct_reply
        self._begun = begun
        self._threads = slots
        self._idling = None if slots else idling  # how the one slot waits for calls; None: on the queue
        self._queue: queue.SimpleQueue[Call | None] = queue.SimpleQueue()  # None: no more calls come
        self._dequeue = threading.Lock()
        # The two tables need no lock: who pops an entry owns it, and dict.pop is atomic, with and without a GIL.
        self._held: dict[int, Call] = {}  # from assign to the last word
        self._waiting: dict[int, Call] = {}  # from assign to begin
        self._counting = threading.Lock()
        self._in_batch = 0  # calls that were run since the loop had its last turn
        self._batch_ends = 0.0
        self._draining = False
        self.served = 0
        self.loop: EventLoop = SharedLoop() if slots else OwnLoop()

    @property
    def slots(self) -> int:
        return self._threads or 1

    @property
    def load(self) -> int:
        """Calls that run now."""
        return max(0, len(self._held) - len(self._waiting))

    # Orders, on the I/O thread.

    def assign(self, call: Call) -> None:
        if self._draining:
            refused = failure.failure(call, "shutting_down", "the worker is draining and takes no calls")
            self._reports.put(refused)
            return
        self._held[call.sequence] = self._waiting[call.sequence] = call
        self._hand_over(call)

    def cancel(self, sequence: int, reason: str) -> None:
        """Ask a call to end; one that has not begun ends at once. An unknown sequence has ended already."""
        call = self._held.get(sequence)
        if call is None:
            return
        call.cancel(reason)
        if self._waiting.pop(sequence, None) is not None:
            self._answer(call, failure.stopped(call))

    def credit(self, sequence: int, chunks: int) -> None:
        call = self._held.get(sequence)
        if call is not None:
            call.add_credit(chunks)

    def drain(self) -> None:
        """Finish what is held, then let `run` return."""
        if not self._draining:
            self._draining = True
            self._hand_over(None)

    def abandon(self) -> None:
        """Nobody is there to take answers: ask every call to end, then drain."""
        for sequence in list(self._held):
            self.cancel(sequence, "cancelled")
        self.drain()

    def _hand_over(self, call: Call | None) -> None:
        self._queue.put(call)
        if self._idling:
            self._idling.recheck()  # whoever runs the loop looks for what to do next

    # Slots.

    def run(self, commands: Mapping[str, Bound]) -> None:
        execution = Execution(commands, self._reports, self.loop)
        if not self._threads:
            self._serve(execution, commands)
            return
        threads = [
            threading.Thread(target=self._serve, args=(execution, commands), name=f"slot-{number}", daemon=True)
            for number in range(1, self._threads + 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _serve(self, execution: Execution, commands: Mapping[str, Bound]) -> None:
        while True:
            call = self._next()
            if call is None:
                return
            self._answer(call, execution.perform(call))
            bound = commands.get(call.command)
            if bound is None or not bound.idempotent:
                self._batch_ends = 0.0  # whoever kills the process next must not take this answer with it
            with self._counting:
                self.served += 1
            del call  # a waiting slot must not keep the last call's arguments alive

    def _next(self) -> Call | None:
        while True:
            with self._dequeue:
                if self._idling:
                    self._idle(self._idling)
                call = self._queue.get()
                if call is None:
                    self._queue.put(None)  # for the other slots
                    return None
                if self._waiting.pop(call.sequence, None) is None:
                    continue  # cancelled while it waited, and answered
                self._begun.begin(call.sequence)
                if self._begun.is_revoked(call.sequence):
                    self._held.pop(call.sequence, None)
                    self._reports.put(Returned(call.sequence))
                    continue
            return call

    def _idle(self, idling: Idling) -> None:
        """Let the loop send answers and wait for calls; but while calls are there, only now and then."""
        if self._queue.empty():
            idling.run_until(self._has_news)
        elif self._in_batch < BATCH_CALLS and time.monotonic() < self._batch_ends:
            self._in_batch += 1
            return
        elif self._in_batch:
            idling.run_once()
        self._in_batch = 1
        self._batch_ends = time.monotonic() + BATCH_SECONDS

    def _has_news(self) -> bool:
        return not self._queue.empty()

    def _answer(self, call: Call, last: Last) -> None:
        call.ended = True
        told = self._direct_reply.deliver(call, last) if call.reply_socket and self._direct_reply else last
        self._held.pop(call.sequence, None)
        self._reports.put(told)

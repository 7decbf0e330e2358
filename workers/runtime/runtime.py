"""Runs calls on slots. It imports neither the transport nor the process.

     I/O thread                     slots (the main thread, or N threads)
     assign ──▶ [queue] ──dequeue lock──▶ shared page ▶ Execution ▶ outbox
     cancel, credit ──▶ AssignedCall
     drain ──▶ None behind the calls that wait

The dequeue lock makes calls begin in the order of their sequences, so that one number in the shared page shows which
calls have begun. One slot does not need it, but it costs only 50 ns, and both profiles share one code path.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from snakepit.workers.call import AssignedCall
from snakepit.workers.context import ReportSink
from snakepit.workers.report import AnswerReport, FinalReport, RevokedReport
from snakepit.workers.runtime import failure
from snakepit.workers.runtime.async_commands import CommandLoop, OwnLoop, SharedLoop
from snakepit.workers.runtime.batches import BatchExecution
from snakepit.workers.runtime.chunks import PartsSender
from snakepit.workers.runtime.containment import CUT_OFF, Containment, Uncontained
from snakepit.workers.runtime.execution import Execution
from snakepit.workers.runtime.shared_check import SharedCheck
from snakepit.workers.schema.commands import BoundCommand


class BegunCalls(Protocol):
    """Where the sequences of begun calls are written; the worker's SharedPage."""

    def begin(self, sequence: int) -> None: ...

    def is_revoked(self, sequence: int) -> bool:
        """Whether the broker revoked the call; asked after `begin`."""
        ...


class WaitStrategy(Protocol):
    """How a slot waits for its next call; the worker's LoopOwner."""

    def recheck(self) -> None: ...

    def run_until(self, is_done: Callable[[], object]) -> None: ...

    def run_once(self) -> None: ...

    def call_soon(self, callback: Callable[[], None]) -> None: ...


class DirectReply(PartsSender, Protocol):
    """Sends results directly to callers; the worker's DirectReplySender."""

    def deliver(self, call: AssignedCall, last: AnswerReport) -> FinalReport: ...


BATCH_CALLS = 32  # calls at most that run before the loop gets a turn
BATCH_SECONDS = 0.001  # how long a report may wait while further calls run; for idempotent commands only


Item = AssignedCall | list[AssignedCall] | None  # a list is a batch


class CallRuntime:
    """The calls of one worker.

    `slots` 0 is the process profile: one slot, on the thread that calls `run`. Otherwise `run` starts that many
    threads, and returns when they have ended.
    """

    def __init__(
        self,
        reports: ReportSink,
        begun: BegunCalls,
        *,
        slots: int = 0,
        idling: WaitStrategy | None = None,
        direct_reply: DirectReply | None = None,
        watched: tuple[int, ...] | None = None,
    ) -> None:
        """`watched`: descriptors that the worker needs; None: what a call changes in the process is not undone."""
        self._reports = reports
        self._direct_reply = direct_reply
        self._begun = begun
        self._threads = slots
        self._idling = None if slots else idling  # how the one slot waits for calls; None: on the queue
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()  # None: no more calls come
        self._forming: list[AssignedCall] = []  # calls of a batch whose last one has not come yet
        self._dequeue = threading.Lock()
        # The two tables need no lock: the thread that pops an entry owns it, and dict.pop is atomic, with and without
        # a GIL.
        self._assigned: dict[int, AssignedCall] = {}  # from assign to the final report
        self._waiting: dict[int, AssignedCall] = {}  # from assign to begin
        self._counting = threading.Lock()
        self._in_batch = 0  # calls that have run since the loop had its last turn
        self._batch_ends = 0.0
        self._draining = False
        self._execution: Execution | None = None
        self._shared: SharedCheck | None = None  # process profile: answers that wait for one check of the process
        self._watched = watched
        self.uncontained = ""  # what a call changed that cannot be undone
        self.cut_off = False  # with it, the link to the broker is gone
        self.served = 0
        self.loop: CommandLoop = SharedLoop() if slots else OwnLoop()

    @property
    def slots(self) -> int:
        return self._threads or 1

    @property
    def load(self) -> int:
        """Calls that run now."""
        return max(0, len(self._assigned) - len(self._waiting))

    # Orders, on the I/O thread.

    def assign(self, call: AssignedCall) -> None:
        if self._draining:
            refused = failure.failure(call, "shutting_down", "the worker is draining and accepts no calls")
            self._reports.put(refused)
            return
        self._assigned[call.sequence] = self._waiting[call.sequence] = call
        if not call.batch:
            self._enqueue(call)
            return
        self._forming.append(call)
        if call.sequence >= call.batch:
            batch, self._forming = self._forming, []
            self._enqueue(batch)

    def cancel(self, sequence: int, reason: str) -> None:
        """Ask a running call to stop, or end one that waits. An unknown sequence has ended already."""
        call = self._assigned.get(sequence)
        if call is None:
            return
        call.cancel(reason)
        if self._waiting.pop(sequence, None) is not None:
            self._finish(call, failure.stopped(call))

    def credit(self, sequence: int, chunks: int) -> None:
        call = self._assigned.get(sequence)
        if call is not None:
            call.add_credit(chunks)

    def drain(self) -> None:
        """Accept no more calls, and let `run` return after those that are here."""
        if not self._draining:
            self._draining = True
            self._enqueue(None)

    def abandon(self) -> None:
        """Cancel every call and drain: the broker is gone, and with it the readers of all reports."""
        for sequence in list(self._assigned):
            self.cancel(sequence, "cancelled")
        self.drain()

    def mark_fork(self) -> None:
        """In a process that a command forked: end it where it returns from the command."""
        if self._execution is not None:
            self._execution.forked = True

    def _enqueue(self, call: Item) -> None:
        self._queue.put(call)
        if self._idling:
            self._idling.recheck()  # the slot may run the loop at the moment; it looks for its next call now

    # Slots.

    def run(self, commands: Mapping[str, BoundCommand]) -> None:
        execution = self._execution = Execution(commands, self._reports, self.loop, self._direct_reply)
        if not self._threads:
            contained = None if self._watched is None else Containment(self._watched)
            if contained:
                self.loop.contain()
            if contained and self._idling:
                self._shared = SharedCheck(contained, execution.perform, self._finish_shared)
            self._serve(execution, commands, contained)
            if contained:
                contained.close()
            return
        threads = [
            threading.Thread(target=self._serve, args=(execution, commands), name=f"slot-{number}", daemon=True)
            for number in range(1, self._threads + 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _serve(
        self, execution: Execution, commands: Mapping[str, BoundCommand], contained: Containment | None = None
    ) -> None:
        batches = BatchExecution(execution, self.loop)
        while True:
            item = self._next()
            if item is None:
                self._settle()
                return
            calls = item if isinstance(item, list) else (item,)
            bound = commands.get(calls[0].command)
            answers: Sequence[AnswerReport]
            if isinstance(item, list) or (bound is not None and bound.batch):
                if not self._settle():
                    return
                answers = batches.perform(calls, bound)
            elif self._shared and not item.reply_socket and self._shared.takes(item, bound):
                self._share(self._shared, item)
                del item, calls
                continue
            else:
                if self._shared and self._shared.waiting and not self._settle():
                    return
                answers = (execution.perform(item),)
            if contained is None:
                self._finish_each(calls, answers)
            elif not self._finish_contained(contained, calls, answers):
                return
            if bound is None or not bound.idempotent:
                self._batch_ends = 0.0  # the next command might kill the process, and this report with it: send it
            with self._counting:
                self.served += len(calls)
            del item, calls, answers  # a waiting slot must not keep the arguments of its last call alive

    def _share(self, shared: SharedCheck, call: AssignedCall) -> None:
        if shared.run(call) and self._idling:
            try:
                self._idling.call_soon(shared.release)
            except OSError:
                self._batch_ends = 0.0  # the call has closed descriptors of the loop: the check comes now
        self.served += 1  # this is the only slot

    def _settle(self) -> bool:
        """Send the answers that wait for a check. False: a call has changed what cannot be undone."""
        shared = self._shared
        if shared is not None:
            try:
                shared.settle()
            except Uncontained as change:
                self.uncontained, self.cut_off = f"after a call of {shared.suspects}: {change}", change.cut_off
            except OSError as error:
                self.uncontained, self.cut_off = f"after a call of {shared.suspects}: {CUT_OFF} ({error})", True
        return not self.uncontained

    def _finish_contained(
        self, contained: Containment, calls: Sequence[AssignedCall], answers: Sequence[AnswerReport]
    ) -> bool:
        """Report, and then undo what the calls changed, while the callers read. False: it cannot be undone."""
        call = calls[0]
        try:
            if len(calls) == 1:  # nearly always
                self._reports.put(self._final(call, answers[0]))
            else:
                self._finish_each(calls, answers)
            contained.restore()
        except Uncontained as change:
            self.uncontained, self.cut_off = f"after a call of {call.command}: {change}", change.cut_off
        except OSError as error:
            self.uncontained, self.cut_off = f"after a call of {call.command}: {CUT_OFF} ({error})", True
        return not self.uncontained

    def _next(self) -> Item:
        while True:
            with self._dequeue:
                if self._idling and not self._idle(self._idling):
                    return None
                call = self._queue.get()
                if call is None:
                    self._queue.put(None)  # for the other slots
                    return None
                if isinstance(call, list):
                    if batch := self._begin_batch(call):
                        return batch
                    continue
                if self._waiting.pop(call.sequence, None) is None:
                    del call  # a slot that waits must not keep its arguments alive
                    continue  # cancelled while it waited, and reported
                self._begun.begin(call.sequence)
                if self._begun.is_revoked(call.sequence):
                    self._assigned.pop(call.sequence, None)
                    self._reports.put(RevokedReport(call.sequence))
                    del call
                    continue
            return call

    def _begin_batch(self, calls: list[AssignedCall]) -> list[AssignedCall]:
        """Begin those that were neither cancelled nor revoked while they waited."""
        waiting = [call for call in calls if self._waiting.pop(call.sequence, None) is not None]
        if not waiting:
            return []
        self._begun.begin(waiting[-1].sequence)
        kept = []
        for call in waiting:
            if self._begun.is_revoked(call.sequence):
                self._assigned.pop(call.sequence, None)
                self._reports.put(RevokedReport(call.sequence))
            else:
                kept.append(call)
        return kept

    def _idle(self, idling: WaitStrategy) -> bool:
        """Let the loop send reports and wait for calls. While calls wait, it gets a turn only now and then.

        False: no call can run here any more.
        """
        is_empty = self._queue.empty()
        if not is_empty and self._in_batch < BATCH_CALLS and time.monotonic() < self._batch_ends:
            self._in_batch += 1
            return True
        if self._shared and self._shared.waiting and not self._settle():
            return False
        if is_empty:
            idling.run_until(self._queue.qsize)
        elif self._in_batch:
            idling.run_once()
        self._in_batch = 1
        self._batch_ends = time.monotonic() + BATCH_SECONDS
        return True

    def _finish_each(self, calls: Sequence[AssignedCall], answers: Sequence[AnswerReport]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            self._finish(call, answer)

    def _finish(self, call: AssignedCall, answer: AnswerReport) -> None:
        self._reports.put(self._final(call, answer))

    def _finish_shared(self, answered: Sequence[tuple[AssignedCall, AnswerReport]]) -> None:
        self._reports.put_all([self._final(call, answer) for call, answer in answered])

    def _final(self, call: AssignedCall, answer: AnswerReport) -> FinalReport:
        call.ended = True
        final: FinalReport = answer
        if (call.reply_socket or call.buffer_socket) and self._direct_reply:
            final = self._direct_reply.deliver(call, answer)
        self._assigned.pop(call.sequence, None)
        return final

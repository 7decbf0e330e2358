"""One check of the process for several short calls of idempotent commands, whose answers wait for it.

     call ─▶ answer ─┐
     call ─▶ answer ─┼─ the loop's turn ─▶ check ─┬─ unchanged ─▶ the answers leave
     call ─▶ answer ─┘                           └─ changed ───▶ undo; each call again, with its own check

A check after each call takes as long as a short call. So the calls of idempotent commands that run before the loop's
next turn share one. The answers would wait for that turn anyway. If a call has changed the process, later calls may
depend on that change. Then the worker drops their answers and runs each of them again, which an idempotent command
allows. A command that has changed the process once gets a check of its own for each later call.

A call that takes long must not delay the answers of those before it. The backup thread then runs the loop, and calls
`release`.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from snakepit.workers.call import AssignedCall
from snakepit.workers.report import AnswerReport, ResultReport
from snakepit.workers.schema.commands import BoundCommand


class ProcessState(Protocol):
    """The process as `setup` left it; the worker's Containment."""

    def restore(self) -> bool:
        """Undo what was changed; return whether there was something to undo. Raises Uncontained."""
        ...

    def is_unchanged_beside(self) -> bool:
        """The same question from another thread than the one that runs the calls; changes nothing."""
        ...


class SharedCheck:
    """The answers that wait. `perform` runs a call, `finish` reports answers."""

    def __init__(
        self,
        state: ProcessState,
        perform: Callable[[AssignedCall], AnswerReport],
        finish: Callable[[Sequence[tuple[AssignedCall, AnswerReport]]], None],
    ) -> None:
        self._state = state
        self._perform = perform
        self._finish = finish
        self.waiting: deque[tuple[AssignedCall, AnswerReport]] = deque()  # answers, for `settle`
        self._release_due = False
        self._changing: set[str] = set()  # commands that have changed the process, perhaps for their own time
        self._running = ""  # the command of the call that runs, or ran last
        self._settling = threading.Lock()
        self.suspects = ""  # the commands of which one changed what cannot be undone

    def takes(self, call: AssignedCall, bound: BoundCommand | None) -> bool:
        """Whether the answer of a call may wait for a common check."""
        return (
            bound is not None
            and bound.idempotent
            and not (call.reply_socket or call.streaming or call.buffers)
            and call.command not in self._changing
            and "resource" not in sys.modules  # a hard limit cannot be undone: it must have one call that lowered it
        )

    def run(self, call: AssignedCall) -> bool:
        """Run a call, and keep its answer. Returns as `add`."""
        self._running = call.command
        return self.add(call, self._perform(call))

    def add(self, call: AssignedCall, answer: AnswerReport) -> bool:
        """Keep an answer until `settle`. True: have the loop's next runner call `release`."""
        self.waiting.append((call, answer))
        if self._release_due:
            return False
        self._release_due = True
        return True

    def settle(self) -> None:
        """Check, and send the answers. On the thread that runs the calls. Raises Uncontained."""
        if not self.waiting:
            return
        with self._settling:
            waiting = list(self.waiting)
            self.waiting.clear()
            if waiting and self._restore(waiting):
                waiting = self._run_again(waiting)
            self._finish(waiting)

    def _restore(self, waiting: list[tuple[AssignedCall, AnswerReport]]) -> bool:
        try:
            return self._state.restore()
        except BaseException:
            self.suspects = ", ".join(sorted({call.command for call, _ in waiting}))
            raise

    def _run_again(self, waiting: list[tuple[AssignedCall, AnswerReport]]) -> list[tuple[AssignedCall, AnswerReport]]:
        if len(waiting) == 1:  # no other call can depend on what this one changed
            self._changing.add(waiting[0][0].command)
            return waiting
        again = []
        changing = set()
        for call, answer in waiting:
            _drop(call, answer)
            again.append((call, self._perform(call)))
            if self._restore(again[-1:]):
                changing.add(call.command)
        # None, where a call changes the process only sometimes. Then it may have been any of them.
        self._changing |= changing or {call.command for call, _ in waiting}
        return again

    def release(self) -> None:
        """On the thread that runs the loop while a call takes long: send the answers before it."""
        self._release_due = False
        if not self.waiting or not self._settling.acquire(blocking=False):
            return  # they go now
        try:
            count = len(self.waiting)  # the call that runs may end during the check, and needs one of its own
            if not count:
                return
            if self._state.is_unchanged_beside():
                self._finish([self.waiting.popleft() for _ in range(count)])
            else:  # perhaps only while the call runs, such as with warnings.catch_warnings: no answer may wait for it
                self._changing.add(self._running)
        finally:
            self._settling.release()


def _drop(call: AssignedCall, answer: AnswerReport) -> None:
    """Close what only this answer had."""
    if isinstance(answer, ResultReport) and answer.value is not None and answer.value.buffers is not None:
        answer.value.buffers.close()
    call.placed.clear()

"""The answers that wait for one check of the process, with a check that answers as the test says."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest

from snakepit.workers.call import AssignedCall
from snakepit.workers.report import AnswerReport, ResultReport
from snakepit.workers.runtime.containment import Uncontained
from snakepit.workers.runtime.shared_check import SharedCheck
from snakepit.workers.schema.commands import BoundCommand
from snakepit.workers.schema.signature import signature_of


def nothing() -> None: ...


IDEMPOTENT = BoundCommand(nothing, signature_of(nothing), idempotent=True)
OTHER = BoundCommand(nothing, signature_of(nothing))


class Worker:
    """Runs calls; `changes` are the answers of the next checks."""

    def __init__(self) -> None:
        self.changes: deque[bool | Uncontained] = deque()
        self.unchanged_beside = True
        self.ran: list[int] = []
        self.sent: list[tuple[int, float]] = []
        self.shared = SharedCheck(self, self.perform, self.finish)

    def restore(self) -> bool:
        found = self.changes.popleft()
        if isinstance(found, Uncontained):
            raise found
        return found

    def is_unchanged_beside(self) -> bool:
        return self.unchanged_beside

    def perform(self, call: AssignedCall) -> AnswerReport:
        self.ran.append(call.sequence)
        return ResultReport(call.sequence, None, seconds=len(self.ran))

    def finish(self, answered: Sequence[tuple[AssignedCall, AnswerReport]]) -> None:
        self.sent += [(call.sequence, answer.seconds) for call, answer in answered]

    def run(self, *commands: str) -> list[bool]:
        calls = [AssignedCall(sequence, name) for sequence, name in enumerate(commands, 1)]
        return [self.shared.run(call) for call in calls]


@pytest.fixture
def worker(monkeypatch: Any) -> Worker:
    monkeypatch.delitem(sys.modules, "resource", raising=False)
    return Worker()


def test_answers_leave_after_one_look_at_an_unchanged_process(worker: Worker) -> None:
    worker.changes.append(False)
    assert worker.run("a", "b", "a") == [True, False, False]
    assert worker.sent == []
    worker.shared.settle()
    worker.shared.settle()  # without a check: no answer waits
    assert worker.sent == [(1, 1), (2, 2), (3, 3)]


def test_after_a_change_all_calls_run_again_with_a_look_each(worker: Worker) -> None:
    worker.changes.extend([True, False, True, False])
    worker.run("a", "b", "a")
    worker.shared.settle()
    assert worker.ran == [1, 2, 3, 1, 2, 3]
    assert worker.sent == [(1, 4), (2, 5), (3, 6)]
    assert not worker.changes


def test_a_command_that_changed_the_process_gets_looks_of_its_own(worker: Worker) -> None:
    worker.changes.extend([True, False, True])
    worker.run("a", "b")
    worker.shared.settle()
    assert worker.shared.takes(AssignedCall(3, "a"), IDEMPOTENT)
    assert not worker.shared.takes(AssignedCall(4, "b"), IDEMPOTENT)


def test_one_call_that_changed_the_process_does_not_run_again(worker: Worker) -> None:
    worker.changes.append(True)
    worker.run("a")
    worker.shared.settle()
    assert worker.sent == [(1, 1)]
    assert not worker.shared.takes(AssignedCall(2, "a"), IDEMPOTENT)


def test_a_change_that_does_not_come_again_counts_for_all_commands(worker: Worker) -> None:
    worker.changes.extend([True, False, False])
    worker.run("a", "b")
    worker.shared.settle()
    assert not worker.shared.takes(AssignedCall(3, "a"), IDEMPOTENT)
    assert not worker.shared.takes(AssignedCall(4, "b"), IDEMPOTENT)


def test_while_a_call_takes_long_the_answers_before_it_leave(worker: Worker) -> None:
    worker.run("a", "b")
    worker.shared.release()
    assert worker.sent == [(1, 1), (2, 2)]
    assert worker.run("c") == [True]  # the next one asks for a release again


def test_while_a_call_takes_long_no_answer_leaves_a_changed_process(worker: Worker) -> None:
    worker.unchanged_beside = False
    worker.changes.extend([True, True, False])
    worker.run("a", "b")
    worker.shared.release()
    assert worker.sent == []
    worker.shared.settle()
    assert worker.sent == [(1, 3), (2, 4)]


def test_no_answer_waits_twice_for_a_command_that_changes_the_process_while_it_runs(worker: Worker) -> None:
    def runs_long(call: AssignedCall) -> AnswerReport:
        if call.command == "long":
            worker.shared.release()  # by the thread that runs the loop meanwhile
        return ResultReport(call.sequence, None)

    worker.shared = SharedCheck(worker, runs_long, worker.finish)
    worker.unchanged_beside = False
    worker.changes.append(False)  # it took its change back
    worker.run("a", "long")
    worker.shared.settle()
    assert [sequence for sequence, _ in worker.sent] == [1, 2]
    assert worker.shared.takes(AssignedCall(3, "a"), IDEMPOTENT)
    assert not worker.shared.takes(AssignedCall(4, "long"), IDEMPOTENT), "those before it have a check of their own"


def test_a_call_that_ends_during_the_look_waits_for_the_next_one(worker: Worker, monkeypatch: Any) -> None:
    def ends_meanwhile() -> bool:
        call = AssignedCall(9, "c")
        worker.shared.add(call, worker.perform(call))
        return True

    monkeypatch.setattr(worker, "is_unchanged_beside", ends_meanwhile)
    worker.run("a")
    worker.shared.release()
    assert worker.sent == [(1, 1)]
    worker.changes.append(False)
    worker.shared.settle()
    assert worker.sent == [(1, 1), (9, 2)]


def test_what_cannot_be_undone_is_reported_with_all_commands_that_may_have_done_it(worker: Worker) -> None:
    worker.changes.append(Uncontained("it closed descriptors"))
    worker.run("b", "a", "b")
    with pytest.raises(Uncontained):
        worker.shared.settle()
    assert worker.shared.suspects == "a, b"
    assert worker.sent == []


def test_only_answers_that_may_be_made_twice_wait(worker: Worker, monkeypatch: Any) -> None:
    takes = worker.shared.takes
    assert takes(AssignedCall(1, "a"), IDEMPOTENT)
    assert not takes(AssignedCall(1, "a"), OTHER)
    assert not takes(AssignedCall(1, "a"), None)
    assert not takes(AssignedCall(1, "a", reply_socket="/run/client"), IDEMPOTENT)  # its caller waits for it alone
    assert not takes(AssignedCall(1, "a", credit=1), IDEMPOTENT)  # its chunks left already
    monkeypatch.setitem(sys.modules, "resource", sys)
    assert not takes(AssignedCall(1, "a"), IDEMPOTENT)

"""The revoke protocol between a worker's handle and the shared page, and what the handle makes of reports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from snakepit.pools.broker.messages import PARTS, Request, Timing
from snakepit.pools.broker.pool.calls import Call
from snakepit.pools.broker.ports import Assignment, Greeting, Payload, WorkerFailure
from snakepit.pools.broker.runner.worker_handle import MAX_LOG, InFlightCall, WorkerHandle
from snakepit.pools.broker.status import RunningCall
from snakepit.workers.process.shared_page import SharedPage, make


class Process:
    """The broker's end of a shared page, as the launcher's process has it."""

    def __init__(self, page: SharedPage) -> None:
        self._page = page
        self.passes, self.passed = True, list[tuple[int, Any]]()

    def last_begun(self) -> int:
        return self._page.last_begun

    def has_begun(self, sequence: int) -> bool:
        return self._page.record().has_begun(sequence)

    def revoke(self, first: int, last: int) -> None:
        self._page.revoke(first, last)

    def pass_buffers(self, sequence: int, parts: Any) -> bool:
        if self.passes:
            self.passed.append((sequence, parts))
        return self.passes


class Link:
    def __init__(self) -> None:
        self.assigned: list[Assignment] = []
        self.alike: list[tuple[Any, ...]] = []
        self.credited: list[tuple[int, int]] = []

    def assign(self, assignment: Assignment) -> None:
        self.assigned.append(assignment)

    def assign_alike(self, first: Assignment, *lists: Any) -> None:
        self.alike.append((first, *lists))

    def credit(self, sequence: int, chunks: int) -> None:
        self.credited.append((sequence, chunks))


class Noted:
    """An observer or a reply that notes what it is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.calls.append((name, *given))


class Worker:
    """The worker's end: comes to its calls in order, and runs those that are not revoked."""

    def __init__(self, page: SharedPage) -> None:
        self._page = page
        self.ran: list[int] = []

    def come_to(self, *sequences: int) -> None:
        for sequence in sequences:
            self._page.begin(sequence)
            if not self._page.is_revoked(sequence):
                self.ran.append(sequence)


class Stage:
    def __init__(self, broker: SharedPage, worker: SharedPage) -> None:
        self.worker = Worker(worker)
        self.observer, self.link, self.reply = Noted(), Link(), Noted()
        self.handle = WorkerHandle("p-1", self.observer, lambda: 2.0)  # type: ignore[arg-type]
        self.handle.process = Process(broker)  # type: ignore[assignment]
        self.handle.link = self.link  # type: ignore[assignment]

    def assign(self, *numbers: int) -> list[Call]:
        calls = [Call(number, "run", 0.0, 9.0) for number in numbers]
        request: Any = Request("p", "run", attachments={"data": b""})
        self.calls = [InFlightCall(call, f"c-{call.id}", request, self.reply) for call in calls]  # type: ignore[arg-type]
        self.handle.assign(self.calls, 1024)
        return calls

    def send(self, *requests: Request, **fields: Any) -> list[InFlightCall]:
        """Assign calls of these requests, which arrived at 0 and have until 9."""
        self.calls = [
            InFlightCall(
                Call(100 + at, "run", 0.0, 9.0, assigned=1.0, **fields), f"c-{at}", one, self.reply, one.credit
            )  # type: ignore[arg-type]
            for at, one in enumerate(requests)
        ]
        self.handle.assign(self.calls, 1024)
        return self.calls


@pytest.fixture
def stage() -> Iterator[Stage]:
    descriptor = make()
    broker, worker = SharedPage(descriptor), SharedPage(descriptor)
    yield Stage(broker, worker)
    broker.close()
    worker.close()
    os.close(descriptor)


def test_revoked_calls_are_released_and_the_worker_never_runs_them(stage: Stage) -> None:
    _, second, third = stage.assign(101, 102, 103)
    stage.worker.come_to(1)
    assert stage.handle.revoke([second, third])
    assert stage.handle.confirm_revoked([second, third]) == [102, 103]
    stage.worker.come_to(2, 3)
    assert stage.worker.ran == [1]
    stage.handle.revoked(2)  # the worker reports its turn; the handle has released it already
    assert stage.observer.calls == []


def test_a_call_that_the_worker_gives_back_first_is_reported(stage: Stage) -> None:
    _, second = stage.assign(101, 102)
    stage.worker.come_to(1)
    assert stage.handle.revoke([second])
    stage.worker.come_to(2)
    stage.handle.revoked(2)
    assert stage.observer.calls == [("calls_revoked", stage.handle, [102])]
    assert stage.handle.confirm_revoked([second]) == []


@pytest.mark.parametrize("passes", [True, False])
def test_bytes_of_large_parts_go_beside_the_call_or_else_in_it(stage: Stage, passes: bool) -> None:
    process: Any = stage.handle.process
    process.passes = passes
    stage.send(Request("p", "run", attachments={PARTS: b"parts", "file": b"of its own"}))
    (sent,) = stage.link.assigned
    assert (process.passed, sent.buffers) == ([(1, b"parts")] if passes else [], passes)
    assert sent.attachments == ({} if passes else {PARTS: b"parts"}) | {"file": b"of its own"}


def test_a_call_that_began_before_the_revoke_stays(stage: Stage) -> None:
    _, second, third = stage.assign(101, 102, 103)
    stage.worker.come_to(1, 2)
    assert stage.handle.revoke([second, third])
    assert stage.handle.confirm_revoked([second, third]) == [103]
    assert stage.handle.begun() == {101, 102}


def test_a_second_revoke_waits_until_the_worker_has_passed_the_first_range(stage: Stage) -> None:
    _, second = stage.assign(101, 102)
    stage.worker.come_to(1)
    assert stage.handle.revoke([second])
    assert stage.handle.confirm_revoked([second]) == [102]
    later = stage.assign(103, 104)
    assert not stage.handle.revoke(later[1:]), "the page has room for one range: 102 would run here and elsewhere"
    stage.worker.come_to(2)
    assert stage.worker.ran == [1]
    assert stage.handle.revoke(later[1:])
    assert stage.handle.confirm_revoked(later[1:]) == [104]
    stage.worker.come_to(3, 4)
    assert stage.worker.ran == [1, 3]


def test_a_call_assigned_after_the_revoke_is_not_confirmed(stage: Stage) -> None:
    _, second = stage.assign(101, 102)
    stage.worker.come_to(1)
    assert stage.handle.revoke([second])
    (later,) = stage.assign(103)
    assert stage.handle.confirm_revoked([second, later]) == [102]


def test_nothing_is_revoked_without_calls_or_process(stage: Stage) -> None:
    (call,) = stage.assign(101)
    assert not stage.handle.revoke([])
    stage.handle.process = None
    assert not stage.handle.revoke([call])
    assert stage.handle.confirm_revoked([call]) == []
    assert stage.handle.begun() == set()


@pytest.mark.parametrize(
    ("measured", "cores", "gil", "expected"),
    [(2.2, 2, False, 2.0), (3.7, 4, False, 3.7), (2.2, 2, True, 1.0), (0.9, 2, True, 0.9), (2.2, 0, False, 2.2)],
)
def test_no_more_slots_run_at_once_than_there_are_cores(
    stage: Stage, measured: float, cores: int, gil: bool, expected: float
) -> None:
    assert stage.handle.parallelism == 0.0
    stage.handle.greeting = Greeting(parallelism=measured, cores=cores)
    stage.handle.gil_enabled = gil
    assert stage.handle.parallelism == expected


# Assignments


def test_an_assignment_has_all_that_the_worker_needs(stage: Stage) -> None:
    request = Request("p", "run", b"{}", {"data": b"1"}, credit_bytes=7, reply_socket="/s", ref=5)
    (one,) = stage.send(request)
    assert stage.link.assigned == [
        Assignment(1, "c-0", "run", b"{}", {"data": b"1"}, 7.0, 0, 1024, 7, "/s", 5, 1.0)
    ]  # its deadline is 9, it is 2 now, and it waited from 0 to 1
    one.call.deadline = 1.0
    assert one.assignment(2.0, 1024).budget == 0.0


def test_plain_calls_are_sent_in_one_message(stage: Stage) -> None:
    calls = stage.send(Request("p", "run", b"1"), Request("p", "run", b"2"))
    assert stage.link.alike == [(calls[0].assignment(2.0, 1024), ["c-0", "c-1"], [b"1", b"2"], [7.0, 7.0])]
    assert stage.link.assigned == []


def test_calls_with_room_for_the_same_chunks_are_sent_in_one_message(stage: Stage) -> None:
    room = Request("p", "run", credit=8, credit_bytes=64)
    calls = stage.send(room, room)
    assert stage.link.alike[0][0] == calls[0].assignment(2.0, 1024)
    assert (stage.link.alike[0][0].credit, stage.link.alike[0][0].credit_bytes) == (8, 64)
    stage.send(room, Request("p", "run"))
    assert len(stage.link.alike) == 1, "calls with different room were sent as one"


def test_one_call_and_calls_of_which_one_is_not_plain_are_sent_alone(stage: Stage) -> None:
    stage.send(Request("p", "run"))
    stage.send(Request("p", "run"), Request("p", "run", reply_socket="/s"))
    assert ([one.sequence for one in stage.link.assigned], stage.link.alike) == ([1, 2, 3], [])
    assert {one.max_result for one in stage.link.assigned} == {1024}


def test_credit_is_granted_to_calls_in_flight_alone(stage: Stage) -> None:
    (one,) = stage.send(Request("p", "run"))
    stage.handle.credit(one, 3)
    stage.handle.results([(1, None, 0.5)])
    stage.handle.credit(one, 3)
    assert stage.link.credited == [(1, 3)]


# Times


def test_the_times_of_a_call_are_its_wait_and_its_run(stage: Stage) -> None:
    (one,) = stage.send(Request("p", "run"))
    assert one.timing(8.0, 4.0) == Timing("c-0", "", 1.0, 4.0)
    assert one.timing(8.0) == Timing("c-0", "", 1.0, 7.0), "an error: it ran until now"
    one.call.prefetched = True
    assert one.timing(8.0, 3.0) == Timing("c-0", "", 5.0, 3.0), "it waited in its worker as well"
    assert one.timing(8.0, 9.0).queued == 0.0
    one.call.assigned = 0.0
    assert one.timing(8.0) == Timing("c-0", "", 8.0, 0.0), "it never began"


def test_the_calls_in_the_slots_are_listed_with_their_times(stage: Stage) -> None:
    stage.send(Request("p", "run"), Request("p", "run"))
    assert stage.handle.running(2.2504, 1) == (RunningCall("c-0", "run", 1.25, 6.75),)
    assert len(stage.handle.running(2.25, 2)) == 2


# Reports


def test_a_report_about_a_call_that_is_not_in_flight_changes_nothing(stage: Stage) -> None:
    stage.send(Request("p", "run"))
    failure = WorkerFailure("adapter_error", "no")
    stage.handle.failure(9, failure, 0.5)
    stage.handle.delivered(9, 0.5)
    stage.handle.results([(9, None, 0.5)])
    stage.handle.chunk(9, Payload(b""))
    stage.handle.progress(9, 0.5, "")
    stage.handle.log(9, "")
    assert (stage.observer.calls, stage.reply.calls) == ([], [])
    stage.handle.failure(1, failure, 0.5)
    assert stage.observer.calls == [("call_failed", stage.handle, stage.calls[0], failure, 0.5)]


def test_an_answered_call_passes_nothing_on_and_an_open_one_within_bounds(stage: Stage) -> None:
    (one,) = stage.send(Request("p", "run"), idempotent=True)
    stage.handle.progress(1, 1.5, "x" * 5000)
    stage.handle.log(1, "y" * 5000)
    assert stage.reply.calls == [("progress", 1.0, "x" * MAX_LOG), ("log", "y" * MAX_LOG)]
    assert one.call.idempotent
    stage.handle.chunk(1, Payload(b"1"))
    assert one.call.idempotent is False, "a second run would send the chunk twice"
    one.call.answered = True
    stage.handle.chunk(1, Payload(b"2"))
    stage.handle.progress(1, 0.5, "")
    stage.handle.log(1, "")
    assert len(stage.reply.calls) == 3


def test_a_range_that_the_worker_has_not_passed_grows_over_calls_that_are_all_revoked(stage: Stage) -> None:
    first, second = stage.assign(101, 102)
    assert stage.handle.revoke([second])
    assert stage.handle.confirm_revoked([second]) == [102]
    assert stage.handle.revoke([first])
    assert stage.handle.confirm_revoked([first]) == [101]
    stage.worker.come_to(1, 2)
    assert stage.worker.ran == []

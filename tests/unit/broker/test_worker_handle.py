"""The revoke protocol between a worker's handle and the shared page, and what the handle makes of reports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from snakepit.pools.broker.messages import Request
from snakepit.pools.broker.pool.calls import Call
from snakepit.pools.broker.ports import Assignment, Greeting
from snakepit.pools.broker.runner.worker_handle import InFlightCall, WorkerHandle
from snakepit.workers.process.shared_page import SharedPage, make


class Process:
    """The broker's end of a shared page, as the launcher's process has it."""

    def __init__(self, page: SharedPage) -> None:
        self._page = page

    def last_begun(self) -> int:
        return self._page.last_begun

    def has_begun(self, sequence: int) -> bool:
        return self._page.record().has_begun(sequence)

    def revoke(self, first: int, last: int) -> None:
        self._page.revoke(first, last)


class Link:
    def __init__(self) -> None:
        self.sequences: list[int] = []

    def assign(self, assignment: Assignment) -> None:
        self.sequences.append(assignment.sequence)


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
        self.handle = WorkerHandle("p-1", None, lambda: 0.0)  # type: ignore[arg-type]
        self.handle.process = Process(broker)  # type: ignore[assignment]
        self.handle.link = Link()  # type: ignore[assignment]

    def assign(self, *numbers: int) -> list[Call]:
        calls = [Call(number, "run", 0.0, 9.0) for number in numbers]
        request: Any = Request("p", "run", attachments={"data": b""})
        self.handle.assign([InFlightCall(call, f"c-{call.id}", request, None) for call in calls], 1024)  # type: ignore[arg-type]
        return calls


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

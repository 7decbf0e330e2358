"""The runtime without a wire: slots, order, cancel, credit, drain."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from snakepit.workers import Adapter, Context, command
from snakepit.workers.call import AssignedCall
from snakepit.workers.report import ChunkReport, DeliveredReport, FailureReport, Report, ResultReport
from snakepit.workers.runtime.runtime import CallRuntime
from snakepit.workers.schema.commands import bind, find_commands

PATIENCE = 20.0


class Reports:
    def __init__(self) -> None:
        self._queue: queue.Queue[Report] = queue.Queue()

    def put(self, report: Report) -> None:
        self._queue.put(report)

    def put_all(self, reports: Sequence[Report]) -> None:
        for report in reports:
            self.put(report)

    def next(self) -> Any:
        return self._queue.get(timeout=PATIENCE)


class Page:
    def __init__(self) -> None:
        self.begun: list[int] = []
        self.revoked: set[int] = set()

    def begin(self, sequence: int) -> None:
        self.begun.append(sequence)

    def is_revoked(self, sequence: int) -> bool:
        return sequence in self.revoked


class Gate(Adapter):
    thread_safe = True

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.open = threading.Event()
        self.closed = threading.Event()

    @command
    def value(self, value: Any = None) -> Any:
        return value

    @command
    def wait(self, ctx: Context) -> Any:
        self.inside.release()
        self.open.wait(PATIENCE)
        return ctx.cancelled

    @command
    def numbers(self, count: int) -> Any:
        try:
            yield from range(count)
        finally:
            self.closed.set()

    @command
    def refuses_to_close(self) -> Any:
        while True:
            try:
                yield 1
            except GeneratorExit:
                yield 2

    @command
    async def greedy(self) -> Any:
        """An async generator that never waits for anything."""
        while True:
            yield 1

    @command
    async def stubborn(self, ctx: Context) -> str:
        self.inside.release()
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            return "finished all the same"
        return "never cancelled"

    @command
    async def own_cancel(self) -> None:
        raise asyncio.CancelledError


class Bench:
    """A runtime that runs on a thread of its own."""

    def __init__(self, slots: int, direct_reply: Any = None) -> None:
        self.reports, self.page, self.adapter = Reports(), Page(), Gate()
        self.runtime = CallRuntime(self.reports, self.page, slots=slots, direct_reply=direct_reply)
        bound = bind(self.adapter, find_commands(Gate))
        self.thread = threading.Thread(target=self.runtime.run, args=(bound,))
        self.thread.start()
        self.sequence = 0

    def assign(self, name: str, arguments: bytes = b"{}", **more: Any) -> int:
        self.sequence += 1
        self.runtime.assign(AssignedCall(self.sequence, name, arguments, **more))
        return self.sequence

    def close(self) -> None:
        self.adapter.open.set()
        self.runtime.abandon()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        self.runtime.loop.close()


@pytest.fixture(params=[0, 2], ids=["process", "thread"])
def bench(request):
    made = Bench(request.param)
    yield made
    made.close()


@pytest.fixture
def single():
    made = Bench(0)
    yield made
    made.close()


@pytest.fixture
def double():
    made = Bench(2)
    yield made
    made.close()


def test_calls_begin_in_the_order_of_their_sequences(bench):
    for number in range(50):
        bench.assign("value", b'{"value": %d}' % number)
    answers = [bench.reports.next() for _ in range(50)]
    assert sorted(answer.sequence for answer in answers) == list(range(1, 51))
    assert bench.page.begun == list(range(1, 51))


def test_load_counts_what_runs_and_served_what_ran(double):
    for _ in range(5):
        double.assign("wait")
    double.adapter.inside.acquire(timeout=PATIENCE)
    double.adapter.inside.acquire(timeout=PATIENCE)
    assert (double.runtime.load, double.runtime.served) == (2, 0)
    assert not double.adapter.inside.acquire(blocking=False)
    double.adapter.open.set()
    for _ in range(5):
        double.reports.next()
    double.runtime.drain()
    double.thread.join(PATIENCE)
    assert (double.runtime.load, double.runtime.served) == (0, 5)


def test_a_waiting_call_is_cancelled_without_beginning(single):
    single.assign("wait")
    single.adapter.inside.acquire(timeout=PATIENCE)
    waiting = single.assign("value")
    single.runtime.cancel(waiting, "deadline_exceeded")
    failure = single.reports.next()
    assert (failure.sequence, failure.code) == (waiting, "deadline_exceeded")
    assert failure.details == {"outcome": "not_started"}
    single.adapter.open.set()
    assert single.reports.next().sequence == 1
    assert single.page.begun == [1]


def test_a_call_whose_deadline_passed_while_it_waited_does_not_run(single):
    single.assign("wait")
    single.adapter.inside.acquire(timeout=PATIENCE)
    late = single.assign("numbers", b'{"count": 1}', budget=1e-9)
    single.adapter.open.set()
    single.reports.next()
    failure = single.reports.next()
    assert (failure.sequence, failure.code, failure.seconds) == (late, "deadline_exceeded", 0.0)
    assert not single.adapter.closed.is_set()


def test_a_running_command_sees_its_cancel(bench):
    sequence = bench.assign("wait")
    bench.adapter.inside.acquire(timeout=PATIENCE)
    bench.runtime.cancel(sequence, "cancelled")
    bench.adapter.open.set()
    assert bench.reports.next().value.data == b"true"


def test_chunks_wait_for_credit_and_a_cancel_closes_the_generator(bench):
    sequence = bench.assign("numbers", b'{"count": 10}', credit=1)
    assert isinstance(bench.reports.next(), ChunkReport)
    bench.runtime.credit(sequence, 1)
    assert bench.reports.next().value.data == b"1"
    assert not bench.adapter.closed.is_set()
    bench.runtime.cancel(sequence, "cancelled")
    assert bench.reports.next().code == "cancelled"
    assert bench.adapter.closed.is_set()


def test_a_generator_that_refuses_to_close_is_reported(bench):
    sequence = bench.assign("refuses_to_close", credit=1)
    bench.reports.next()
    bench.runtime.cancel(sequence, "cancelled")
    failure = bench.reports.next()
    assert (failure.code, failure.message) == ("adapter_error", "RuntimeError: generator ignored GeneratorExit")


def test_an_async_generator_that_never_waits_can_be_cancelled(bench):
    sequence = bench.assign("greedy", credit=1000)
    bench.reports.next()
    bench.runtime.cancel(sequence, "cancelled")
    while isinstance(report := bench.reports.next(), ChunkReport):
        pass
    assert report.code == "cancelled"


def test_an_async_command_that_handles_its_cancel_gives_its_result(bench):
    sequence = bench.assign("stubborn")
    bench.adapter.inside.acquire(timeout=PATIENCE)
    bench.runtime.cancel(sequence, "cancelled")
    assert bench.reports.next().value.data == b'"finished all the same"'


def test_a_cancellation_of_the_commands_own_is_an_error(bench):
    bench.assign("own_cancel")
    failure = bench.reports.next()
    assert (failure.code, failure.type) == ("adapter_error", "asyncio.exceptions.CancelledError")


def test_a_drained_runtime_finishes_its_calls_and_refuses_new_ones(bench):
    bench.assign("wait")
    bench.adapter.inside.acquire(timeout=PATIENCE)
    bench.runtime.drain()
    bench.runtime.drain()
    refused = bench.assign("value")
    report = bench.reports.next()
    assert (report.sequence, report.code) == (refused, "shutting_down")
    bench.adapter.open.set()
    assert isinstance(bench.reports.next(), ResultReport)
    bench.thread.join(PATIENCE)
    assert not bench.thread.is_alive()


@pytest.mark.parametrize("slots", [0, 2])
def test_a_drain_before_the_commands_ends_the_run(slots):
    runtime = CallRuntime(Reports(), Page(), slots=slots)
    runtime.drain()
    thread = threading.Thread(target=runtime.run, args=({},), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert (runtime.load, runtime.served) == (0, 0)
    runtime.loop.close()


def test_an_abandoned_runtime_asks_every_call_to_end(double):
    for _ in range(4):
        double.assign("wait")
    double.adapter.inside.acquire(timeout=PATIENCE)
    double.adapter.inside.acquire(timeout=PATIENCE)
    double.runtime.abandon()
    codes = [double.reports.next() for _ in range(2)]
    assert [report.code for report in codes if isinstance(report, FailureReport)] == ["cancelled", "cancelled"]
    double.adapter.open.set()
    assert {double.reports.next().value.data for _ in range(2)} == {b"true"}


def test_finished_calls_are_forgotten(bench):
    sequence = bench.assign("value")
    bench.reports.next()
    bench.runtime.cancel(sequence, "cancelled")
    bench.runtime.credit(sequence, 5)
    bench.assign("value")
    assert isinstance(bench.reports.next(), ResultReport)


class DirectReplySender:
    """Delivers to the reply socket `open` only."""

    def __init__(self):
        self.sent = []

    def deliver(self, call, last):
        self.sent.append((call.sequence, type(last)))
        return DeliveredReport(last.sequence, last.seconds) if call.reply_socket == "open" else last


@pytest.mark.parametrize("slots", [0, 2])
def test_only_a_call_with_a_reply_socket_is_delivered_and_the_broker_gets_one_report(slots):
    bench = Bench(slots, direct_reply := DirectReplySender())
    try:
        reports = [
            (bench.assign("value", b'{"value": 1}', reply_socket=reply_socket), bench.reports.next())
            for reply_socket in ("open", "shut", "")
        ]
        assert [(report.sequence, type(report)) for _, report in reports] == [
            (1, DeliveredReport),
            (2, ResultReport),
            (3, ResultReport),
        ]
        assert direct_reply.sent == [(1, ResultReport), (2, ResultReport)]
        assert bench.runtime.load == 0
    finally:
        bench.close()

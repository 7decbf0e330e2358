"""Batches in a worker: columns, one answer for each call, errors of one call, async methods, and what is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from snakepit.workers import Adapter, Context, command
from snakepit.workers.adapter import InvalidAdapter
from snakepit.workers.call import AssignedCall
from snakepit.workers.report import FailureReport, ResultReport, RevokedReport
from snakepit.workers.runtime.runtime import CallRuntime
from snakepit.workers.schema.commands import bind, find_commands
from tests.unit.workers.test_runtime import PATIENCE, Page, Reports


class Together(Adapter):
    thread_safe = True

    def __init__(self) -> None:
        self.sizes: list[int] = []

    @command(batch=8)
    def double(self, number: list[int], times: Sequence[int] = (2,)) -> list[int]:
        self.sizes.append(len(number))
        return [one * factor for one, factor in zip(number, times, strict=True)]

    @command(batch=8)
    def refuse_odd(self, number: list[int]) -> list[Any]:
        return [ValueError(f"{one} is odd") if one % 2 else one for one in number]

    @command(batch=8, idempotent=True)
    def fail_at_three(self, number: list[int]) -> list[int]:
        self.sizes.append(len(number))
        if 3 in number:
            raise ValueError("three")
        return number

    @command(batch=8)
    def fail_once(self, number: list[int]) -> list[int]:
        self.sizes.append(len(number))
        raise ValueError("all of it")

    @command(batch=8)
    def too_few(self, number: list[int]) -> list[int]:
        return number[1:]

    @command(batch=8)
    def no_list(self, number: list[int]) -> Any:
        return {"a": 1}

    @command(batch=8)
    def ids(self, number: list[int], ctx: list[Context]) -> list[str]:
        return [one.call_id for one in ctx]

    @command(batch=8)
    def broken(self, number: int) -> list[int]:
        return [number]

    @command(batch=8)
    async def later(self, number: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return number

    @command(batch=8)
    async def never(self, number: list[int]) -> list[int]:
        await asyncio.sleep(PATIENCE)
        return number


class Bench:
    def __init__(self, slots: int) -> None:
        self.reports, self.page, self.adapter = Reports(), Page(), Together()
        self.runtime = CallRuntime(self.reports, self.page, slots=slots)
        self.sequence = 0
        self.thread = threading.Thread(target=self.runtime.run, args=(bind(self.adapter, find_commands(Together)),))
        self.thread.start()

    def send(self, name: str, *arguments: bytes) -> None:
        """Send one batch."""
        last = self.sequence + len(arguments)
        for text in arguments:
            self.sequence += 1
            call = AssignedCall(self.sequence, name, text, call_id=f"c-{self.sequence}", batch=last)
            self.runtime.assign(call)

    def run(self, name: str, *arguments: bytes) -> list[Any]:
        """The result of each call, or its error's code and message."""
        self.send(name, *arguments)
        return [shown(self.reports.next()) for _ in arguments]

    def close(self) -> None:
        self.runtime.abandon()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        self.runtime.loop.close()


def shown(report: Any) -> Any:
    if isinstance(report, ResultReport):
        assert report.value is not None
        return report.value.data.decode()
    return (report.code, report.message) if isinstance(report, FailureReport) else report


@pytest.fixture(params=[0, 2], ids=["process", "thread"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(request.param)
    yield made
    made.close()


def numbers(*values: int) -> list[bytes]:
    return [b'{"number": %d}' % value for value in values]


def test_a_batch_is_one_call_of_the_method_with_columns(bench: Bench) -> None:
    assert bench.run("double", *numbers(1, 2), b'{"number": 3, "times": 5}') == ["2", "4", "15"]
    assert bench.adapter.sizes == [3]
    assert bench.page.begun == [3]


def test_a_call_alone_is_a_batch_of_one(bench: Bench) -> None:
    bench.sequence += 1
    bench.runtime.assign(AssignedCall(1, "double", b'{"number": 4}'))
    assert shown(bench.reports.next()) == "8"


def test_wrong_arguments_fail_their_call_alone(bench: Bench) -> None:
    first, second, third = bench.run("double", *numbers(1), b'{"number": "x"}', b'{"numbr": 1}')
    assert (first, second[0], third[0]) == ("2", "bad_arguments", "bad_arguments")
    assert bench.adapter.sizes == [1]


def test_an_exception_as_an_item_is_the_error_of_its_call(bench: Bench) -> None:
    assert bench.run("refuse_odd", *numbers(2, 3, 4)) == ["2", ("adapter_error", "ValueError: 3 is odd"), "4"]


def test_a_call_that_makes_an_idempotent_batch_raise_fails_alone(bench: Bench) -> None:
    answers = bench.run("fail_at_three", *numbers(0, 1, 2, 3, 4, 5, 6, 7))
    assert answers == ["0", "1", "2", ("adapter_error", "ValueError: three"), "4", "5", "6", "7"]
    assert bench.adapter.sizes == [8, 4, 2, 2, 1, 1, 4]


def test_a_batch_that_is_not_idempotent_is_not_run_twice(bench: Bench) -> None:
    assert bench.run("fail_once", *numbers(1, 2)) == [("adapter_error", "ValueError: all of it")] * 2
    assert bench.adapter.sizes == [2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("too_few", "too_few returned 1 results for a batch of 2 calls; return one for each"),
        ("no_list", "no_list returned dict; a batch returns a list with one result for each call"),
    ],
)
def test_a_method_that_does_not_return_one_result_for_each_call_is_named(bench: Bench, name: str, message: str) -> None:
    assert bench.run(name, *numbers(1, 2)) == [("adapter_error", message)] * 2


def test_each_call_has_its_own_context(bench: Bench) -> None:
    assert bench.run("ids", *numbers(1, 2)) == ['"c-1"', '"c-2"']


def test_an_async_method_runs_batches_and_is_cancelled_when_all_calls_are(bench: Bench) -> None:
    assert bench.run("later", *numbers(1, 2)) == ["1", "2"]
    bench.send("never", *numbers(1, 2))
    for sequence in (3, 4):
        bench.runtime.cancel(sequence, "cancelled")
    assert [shown(bench.reports.next())[0] for _ in range(2)] == ["cancelled", "cancelled"]


def test_a_revoked_call_of_a_batch_does_not_run(bench: Bench) -> None:
    bench.page.revoked = {2}
    bench.send("double", *numbers(1, 2))
    found = [bench.reports.next() for _ in range(2)]
    assert {type(one) for one in found} == {ResultReport, RevokedReport}
    assert bench.adapter.sizes == [1]


def test_a_batch_of_a_command_that_cannot_be_called_fails_call_by_call(bench: Bench) -> None:
    answers = bench.run("broken", *numbers(1, 2))
    assert [code for code, _ in answers] == ["adapter_error", "adapter_error"]
    assert "annotate it list[T]" in answers[0][1]


def problem(method: Any) -> str:
    kind = type("Wrong", (Adapter,), {"run": command(batch=4)(method)})
    with pytest.raises(InvalidAdapter) as caught:
        find_commands(kind)
    return str(caught.value)


def test_annotations_that_do_not_fit_a_batch_are_refused_at_the_start() -> None:
    def one(self: Any, text: str) -> list[str]: ...

    def one_result(self: Any, text: list[str]) -> str: ...

    def default(self: Any, text: list[str], limit: list[int] = 5) -> list[str]: ...  # type: ignore[assignment]

    def more(self: Any, **options: list[str]) -> list[str]: ...

    def context(self: Any, ctx: Context) -> list[str]: ...

    def nothing(self: Any, ctx: list[Context]) -> list[str]: ...

    def chunks(self: Any, text: list[str]) -> Iterator[str]:
        yield ""

    assert "annotate it list[T]" in problem(one)
    assert "annotate it -> list[R]" in problem(one_result)
    assert "write Sequence[T] = (5,)" in problem(default)
    assert "names each of its parameters" in problem(more)
    assert "annotate it list[Context]" in problem(context)
    assert "needs a parameter" in problem(nothing)
    assert "cannot be a generator" in problem(chunks)


@pytest.mark.parametrize(
    "given", [{"batch": 1}, {"batch": 2000}, {"batch": True}, {"batch": 4, "wait": 2}, {"wait": 1}]
)
def test_numbers_outside_their_bounds_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidAdapter):
        command(**given)


def test_the_schema_is_that_of_one_call() -> None:
    facts = find_commands(Together)["double"].facts()
    assert facts["schema"]["properties"] == {"number": {"type": "integer"}, "times": {"type": "integer", "default": 2}}
    assert facts["schema"]["required"] == ["number"]
    assert (facts["batch"], facts["batch_wait"]) == (8, 0.005)

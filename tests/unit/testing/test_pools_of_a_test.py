"""`snakepit.testing`: calls, answers, errors, assertions. A unit test may use neither processes nor sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from snakepit import Adapter, Context, command, connect
from snakepit.pools.broker.errors import (
    AdapterError,
    BadArguments,
    BrokerUnreachable,
    CommandUnknown,
    DeadlineExceeded,
    PoolFailed,
    PoolUnknown,
    QueueFull,
    QueueTimeout,
    WorkerLost,
)
from snakepit.pools.client import Client, Progress
from snakepit.testing import Pools, active_pools, override_pools, run_jobs


class Shop(Adapter):
    made = 0

    def __init__(self, factor: int = 1) -> None:
        type(self).made += 1
        self.factor = factor

    @command
    def total(self, prices: list[int], at: date | None = None) -> int:
        """Add prices."""
        return sum(prices) * self.factor

    @command
    def each(self, prices: list[int]) -> Iterator[int]:
        yield from prices

    @command
    def long(self, call: Context) -> str:
        call.progress(0.5, "half")
        call.wait(60)
        call.raise_if_cancelled()
        return "done"

    @command
    def stubborn(self, held: str) -> None:
        HELD[held].wait(60)

    @command
    async def patient(self) -> None:
        await asyncio.sleep(60)

    @command
    def region(self) -> str:
        return {"a": "b"}["region"]


HELD: dict[str, threading.Event] = {}


@pytest.fixture
def pools() -> Iterator[Pools]:
    Shop.made = 0
    with override_pools({"shop": Shop}) as pools:
        yield pools


@pytest.fixture
def client(pools: Pools) -> Client:
    return connect("/no/such/broker.sock")


def test_a_client_of_any_address_calls_the_real_adapter(client: Client) -> None:
    assert client.call("shop", "total", prices=[1, 2]) == 3
    assert client.call("shop", "total", {"prices": [4]}) == 4
    assert list(client.stream("shop", "each", prices=list(range(300)))) == list(range(300))
    assert client.submit("shop", "total", prices=[5]).result(20) == 5


async def test_an_event_loop_calls_the_real_adapter(client: Client) -> None:
    assert await client.acall("shop", "total", prices=[1, 2]) == 3
    assert [chunk async for chunk in client.astream("shop", "each", prices=[1, 2])] == [1, 2]


def test_a_client_that_was_made_before_comes_to_the_pools_too_and_leaves_them_with_the_test() -> None:
    client = connect("/no/such/broker-2.sock", connect_timeout=0.01)
    with override_pools({"shop": Shop}):
        assert client.call("shop", "total", prices=[1]) == 1
        with override_pools({"shop": {"adapter": Shop, "args": {"factor": 10}}}):
            assert client.call("shop", "total", prices=[1]) == 10
        assert client.call("shop", "total", prices=[1]) == 1


def test_wrong_calls_are_refused_like_those_of_a_worker(client: Client) -> None:
    with pytest.raises(BadArguments, match=r"prices\[0\] must be an integer"):
        client.call("shop", "total", prices=["1"])
    with pytest.raises(CommandUnknown, match="Did you mean total"):
        client.call("shop", "totl")
    with pytest.raises(PoolUnknown, match="Did you mean shop"):
        client.call("shp", "total")


def test_an_exception_has_its_name_and_traceback(client: Client) -> None:
    with pytest.raises(AdapterError, match="KeyError: 'region'") as caught:
        client.call("shop", "region")
    assert "in region" in caught.value.details["traceback"]


@pytest.mark.parametrize("name", ["long", "patient"])
def test_a_deadline_ends_a_call(client: Client, name: str) -> None:
    with pytest.raises(DeadlineExceeded):
        client.call("shop", name, timeout=0.02)


def test_a_command_that_ignores_its_deadline_is_left_behind_and_the_pool_goes_on(pools: Pools, client: Client) -> None:
    held = HELD["one"] = threading.Event()
    with pytest.raises(DeadlineExceeded):
        client.call("shop", "stubborn", held="one", timeout=0.02)
    assert [client.call("shop", "total", prices=[n]) for n in range(5)] == list(range(5))
    held.set()


def test_a_call_is_cancelled_while_it_runs(client: Client) -> None:
    with client.events("shop", "long") as events:
        assert next(events) == Progress(0.5, "half")
    future = client.submit("shop", "long")
    assert future.cancel()
    assert client.call("shop", "total", prices=[1]) == 1


def test_a_pool_has_its_own_limits(client: Client) -> None:
    HELD["both"] = threading.Event()
    limits = {"adapter": Shop, "size": 1, "queue_limit": 1, "queue_timeout": 0.05}
    with override_pools({"shop": limits}):
        running = client.submit("shop", "stubborn", held="both")
        while client.status("shop").pools[0].busy == 0:
            threading.Event().wait(0.001)
        waiting = client.submit("shop", "total", prices=[1])
        refused = [client.submit("shop", "total", prices=[1]) for _ in range(3)]
        assert any(isinstance(one.exception(20), QueueFull) for one in refused)
        assert isinstance(waiting.exception(20), QueueTimeout | type(None))
        HELD["both"].set()
        running.result(20)


def test_a_setup_that_fails_fails_the_pool_with_its_reason(client: Client) -> None:
    class Broken(Shop):
        def setup(self) -> None:
            raise RuntimeError("the model file is missing")

    with override_pools({"shop": Broken}), pytest.raises(PoolFailed, match="the model file is missing"):
        client.call("shop", "total", prices=[1])


def test_status_and_commands_are_those_of_the_pools(client: Client) -> None:
    (pool,) = client.status().pools
    assert pool.name == "shop"
    assert pool.ready >= 1  # the second worker may still start
    assert {one.name: one.summary for one in client.commands("shop")}["total"] == "Add prices."
    assert "snakepit_" in client.metrics()


# Answers


def test_an_answer_replaces_a_command_after_the_check_of_its_arguments(pools: Pools, client: Client) -> None:
    pools.answer("shop", "total", 7)
    assert client.call("shop", "total", prices=[1]) == 7
    with pytest.raises(BadArguments, match="prices is missing"):
        client.call("shop", "total")
    assert Shop.made == 0, "the model was loaded for a faked command"


def test_an_answer_may_be_a_function_an_exception_chunks_or_a_coroutine(pools: Pools, client: Client) -> None:
    async def later(prices: list[int]) -> list[int]:
        return prices[::-1]

    pools.answer("shop", "total", lambda prices, at: [prices, str(at)])
    pools.answer("shop", "each", [1, 2])
    assert client.call("shop", "total", prices=[1], at=date(2026, 1, 2).isoformat()) == [[1], "2026-01-02"]
    assert list(client.stream("shop", "each", prices=[])) == [1, 2]
    pools.answer("shop", "each", later)
    assert client.call("shop", "each", prices=[1, 2]) == [2, 1]
    pools.answer("shop", "total", ValueError("no"))
    with pytest.raises(AdapterError, match="ValueError: no"):
        client.call("shop", "total", prices=[], at="2026-01-02")


def test_a_fake_gets_the_context_where_it_asks_for_it(pools: Pools, client: Client) -> None:
    pools.answer("shop", "long", lambda: "fake")
    assert client.call("shop", "long") == "fake"
    pools.answer("shop", "long", lambda call: call.call_id)
    assert client.call("shop", "long")


def test_a_command_beside_a_faked_one_is_the_real_one(pools: Pools, client: Client) -> None:
    pools.answer("shop", "each", [1])
    assert client.call("shop", "total", prices=[1, 2]) == 3
    assert Shop.made == 1


def test_a_fake_of_nothing_is_refused(pools: Pools) -> None:
    with pytest.raises(ValueError, match=r"no command 'totl' \(did you mean 'total'\?\)"):
        pools.answer("shop", "totl", 1)
    with pytest.raises(ValueError, match=r"no pool is named 'shp' \(did you mean 'shop'\?\)"):
        pools.fail("shp", "total", "queue_full")
    with pytest.raises(ValueError, match="not an error code"):
        pools.fail("shop", "total", "full")


def test_an_adapter_whose_libraries_are_not_installed_can_be_faked() -> None:
    with override_pools({"models": "no_such_library.models.Model"}) as pools:
        pools.answer("models", "predict", lambda x: x + 1)
        assert pools.client.call("models", "predict", x=1) == 2
    with (
        override_pools({"models": "no_such_library.models.Model"}) as pools,
        pytest.raises(PoolFailed, match="no_such"),
    ):
        pools.client.call("models", "predict", x=1)


# Errors


def test_an_error_is_given_so_many_times_and_without_running_the_command(pools: Pools, client: Client) -> None:
    pools.fail("shop", "total", QueueFull("busy", retry_after=1.5), times=2)
    for _ in range(2):
        with pytest.raises(QueueFull, match="busy") as caught:
            client.call("shop", "total", prices=[1])
        assert caught.value.retry_after == 1.5
    assert client.call("shop", "total", prices=[1]) == 1


def test_errors_of_a_pool_and_of_all_pools(pools: Pools, client: Client) -> None:
    pools.fail("shop", "*", WorkerLost)
    with pytest.raises(WorkerLost):
        client.call("shop", "total", prices=[1])
    pools.reset()
    pools.fail("*", "*", "deadline_exceeded")
    with pytest.raises(DeadlineExceeded):
        list(client.stream("shop", "each", prices=[1]))


def test_an_unreachable_broker_answers_neither_calls_nor_questions(pools: Pools, client: Client) -> None:
    assert client.call("shop", "total", prices=[1]) == 1
    with pools.unreachable():
        with pytest.raises(BrokerUnreachable) as caught:
            client.call("shop", "total", prices=[1])
        assert caught.value.outcome == "not_started"
        # As with a real broker, the error comes where the answer would.
        stream, future = client.stream("shop", "each", prices=[1]), client.submit("shop", "total", prices=[1])
        with pytest.raises(BrokerUnreachable, match="unreachable in this test"):
            next(stream)
        assert isinstance(future.exception(20), BrokerUnreachable)
        with pytest.raises(BrokerUnreachable):
            client.status()
    assert client.call("shop", "total", prices=[1]) == 1
    pools.calls.assert_called("shop", "total", times=2)


# Assertions


def test_calls_are_compared_by_what_the_worker_gets(pools: Pools, client: Client) -> None:
    calls = pools.calls
    client.call("shop", "total", prices=(1, 2), timeout=3, priority=4, affinity="ada")
    calls.assert_called("shop", "total", times=1)
    calls.assert_called_once_with("shop", "total", prices=(1, 2))
    calls.assert_called_with("shop", "total", {"prices": (1, 2)})
    with pytest.raises(AssertionError):
        calls.assert_called_with("shop", "total", prices=[1, 2])  # a tuple arrives as a tuple
    assert (calls[0].timeout, calls[0].priority, calls[0].affinity, len(calls)) == (3.0, 4, "ada", 1)
    calls.assert_not_called("shop", "each")


def test_a_failed_assertion_shows_the_calls(pools: Pools, client: Client) -> None:
    client.call("shop", "total", prices=[1])
    for check, wanted in [
        (lambda: pools.calls.assert_called_with("shop", "total", prices=[2]), "shop.total(prices=[2]) was not called"),
        (lambda: pools.calls.assert_called("shop", "each"), "shop.each was not called"),
        (lambda: pools.calls.assert_called("shop", "total", times=2), "was called 1 times, not 2"),
        (lambda: pools.calls.assert_not_called("shop"), "shop was called 1 times"),
    ]:
        with pytest.raises(AssertionError) as caught:
            check()
        assert wanted in str(caught.value)
        assert "shop.total(prices=[1])" in str(caught.value)


# The context manager


def test_it_decorates_a_function_and_starts_new_pools_each_time() -> None:
    @override_pools({"shop": Shop})
    def total() -> Any:
        return connect("/no/such/broker.sock").call("shop", "total", prices=[1])

    assert [total(), total()] == [1, 1]


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"workers": 0}, "workers: 0 is not"),
        ({"jobs": "later"}, "jobs: 'later' is neither"),
        ({"pools": {"shop": 3}}, r"pools\['shop'\]: 3 is not an adapter"),
        ({"pools": {"shop": {"adapter": Shop, "sise": 1}}}, "sise"),
    ],
)
def test_a_wrong_option_is_refused_where_it_is_written(options: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        override_pools(**options)


def test_nothing_of_it_is_left_when_it_ends() -> None:
    before = {thread.name for thread in threading.enumerate()}
    with override_pools({"shop": Shop}) as pools:
        pools.client.call("shop", "total", prices=[1])
    after = {thread.name for thread in threading.enumerate()} - before
    assert not {name for name in after if "shop" in name or "broker" in name}


async def test_it_decorates_an_async_function_for_as_long_as_that_runs() -> None:
    @override_pools({"shop": Shop})
    async def total() -> Any:
        await asyncio.sleep(0)
        return await connect("/no/such/broker.sock").acall("shop", "total", prices=[1])

    assert [await total(), await total()] == [1, 1]


def test_a_class_enters_it_in_its_set_up() -> None:
    with pytest.raises(TypeError, match=r"write self\.pools = self\.enterContext\(override_pools\(\)\) in its setUp"):
        override_pools({"shop": Shop})(Shop)


def test_the_active_pools_are_those_of_the_innermost_override(pools: Pools) -> None:
    assert active_pools() is pools
    with override_pools({"other": Shop}) as inner:
        assert active_pools() is inner
    assert active_pools() is pools


def test_without_pools_a_test_is_sent_to_what_starts_them() -> None:
    with pytest.raises(RuntimeError, match=r"use override_pools\(\)"):
        run_jobs()


class Grouped(Adapter):
    @command(idempotent=True, batch=8)
    def half(self, number: list[int], by: list[int] = [2]) -> list[Any]:  # noqa: B006
        return [ValueError("odd") if one % two else one // two for one, two in zip(number, by, strict=True)]


def test_a_command_runs_in_batches_and_is_faked_call_by_call() -> None:
    with override_pools({"grouped": Grouped}) as pools:
        answers = list(pools.client.map("grouped", "half", [{"number": 4}, {"number": 5}], return_errors=True))
        assert answers[0] == 2
        assert isinstance(answers[1], AdapterError)
        pools.answer("grouped", "half", lambda number, by: number + by)
        assert list(pools.client.map("grouped", "half", [{"number": 4}, {"number": 5, "by": 7}])) == [6, 12]

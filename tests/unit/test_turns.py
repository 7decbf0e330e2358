"""Turns of requests: which request computes, which one waits, and that none is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from snakepit.pools.api import turns
from snakepit.pools.api.turns import Turn, Turns, within, without_turn

BODY = {"type": "http.request", "body": b"", "more_body": False}
START = {"type": "http.response.start", "status": 200, "headers": []}
Step = Callable[[Callable[[dict[str, Any]], Awaitable[None]]], Awaitable[None]]


@pytest.fixture(autouse=True)
def turns_that_time_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for half a second would end them."""
    monkeypatch.setattr(turns, "LONGEST_TURN", 1e6)


class Requests:
    """Requests whose application reads the body, notes its start, and does one more step."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.begun: list[str] = []
        self.go_on = asyncio.Event()
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def compute(self, send: Any) -> None:
        await self.go_on.wait()

    async def arrive(self, *names: str, key: str = "1", step: Step | None = None, bodies: Any = None) -> None:
        """Start a request of this key for each name, and let all go as far as they can."""
        for name in names:
            self.tasks[name] = asyncio.create_task(self._run(name, key, step or self.compute, bodies))
        await settle()

    async def _run(self, name: str, key: str, step: Step, bodies: asyncio.Queue[Any] | None) -> None:
        async def receive() -> Any:
            return await bodies.get() if bodies else BODY

        async def send(message: Any) -> None:
            pass

        async def application(scope: Any, receive: Any, send: Any) -> None:
            while (message := await receive()).get("more_body"):
                pass
            if message["type"] == "http.request":
                self.begun.append(name)
                await step(send)

        await self.turns.run(application, key, {}, receive, send)

    async def end(self) -> None:
        """Let all requests end; no key may be left."""
        self.go_on.set()
        await asyncio.wait_for(asyncio.gather(*self.tasks.values(), return_exceptions=True), 60)
        assert not self.turns._lanes


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_requests_of_a_key_take_turns_in_order_of_arrival() -> None:
    requests = Requests()
    await requests.arrive("a", "b", "c", "d")
    assert requests.begun == ["a", "b"]
    await requests.end()
    assert requests.begun == ["a", "b", "c", "d"]


async def test_a_request_of_another_key_does_not_wait() -> None:
    requests = Requests()
    await requests.arrive(*(f"greedy {number}" for number in range(100)))
    await requests.arrive("other", key="2")
    assert requests.begun == ["greedy 0", "greedy 1", "other"]
    await requests.end()


async def test_a_call_that_waits_for_the_broker_has_no_turn() -> None:
    requests, answer, done = Requests(), asyncio.Event(), []

    async def call(send: Any) -> None:
        await without_turn(answer.wait())
        done.append("call")

    await requests.arrive("a", "b", "c", step=call)
    assert requests.begun == ["a", "b", "c"]
    await requests.arrive("d", "e")  # they compute, and leave no turn for what follows the answers
    answer.set()
    await settle()
    assert done == []
    await requests.end()
    assert done == ["call"] * 3


async def test_the_error_of_a_call_waits_for_a_turn_too() -> None:
    requests, answer, seen = Requests(), asyncio.get_running_loop().create_future(), []

    async def call(send: Any) -> None:
        try:
            await without_turn(answer)
        except ValueError as error:
            seen.append(str(error))

    await requests.arrive("a", step=call)
    await requests.arrive("b", "c")
    answer.set_exception(ValueError("refused"))
    await settle()
    assert seen == []
    await requests.end()
    assert seen == ["refused"]


async def test_a_stream_has_no_turn_once_its_response_has_begun() -> None:
    requests = Requests()

    async def stream(send: Any) -> None:
        await send(START)
        await requests.go_on.wait()

    await requests.arrive(*"abcde", step=stream)
    assert requests.begun == [*"abcde"]
    await requests.end()


async def test_a_whole_response_has_its_turn_until_it_is_sent() -> None:
    requests = Requests()

    async def answer(send: Any) -> None:
        await send({**START, "headers": [(b"Content-Length", b"2")]})
        await requests.go_on.wait()

    await requests.arrive(*"abc", step=answer)
    assert requests.begun == ["a", "b"]
    await requests.end()


async def test_a_stream_takes_a_turn_for_what_it_computes() -> None:
    requests, done = Requests(), []

    async def stream(send: Any) -> None:
        await send(START)
        assert await within(lambda: asyncio.sleep(0, "read")) == "read"
        done.append("stream")

    await requests.arrive("a", "b")
    await requests.arrive("stream", step=stream)
    assert done == []
    await requests.end()
    assert done == ["stream"]
    assert await within(lambda: asyncio.sleep(0, "outside of a request")) == "outside of a request"


async def test_what_a_stream_computes_within_a_turn_takes_no_second_one() -> None:
    requests = Requests()

    async def two(send: Any) -> None:
        await within(partial(asyncio.sleep, 0))
        await requests.go_on.wait()

    await requests.arrive(*"abc", step=two)
    assert requests.begun == ["a", "b"]
    await requests.end()


async def test_beside_another_key_one_request_of_each_computes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SHARED_SECONDS", 1e6)
    shared = Turns()
    lone, greedy, waiting, other, next_ = (Turn(shared, name) for name in ("1", "1", "1", "2", "1"))
    await lone.take()
    await greedy.take()
    queued = [asyncio.create_task(one.take()) for one in (waiting, next_)]
    await other.take()
    lone.give()
    await settle()
    assert not queued[0].done()  # one of its key computes
    greedy.give()
    await settle()
    assert [one.done() for one in queued] == [True, False]
    waiting.give()
    await queued[1]
    for one in (other, next_):
        one.give()
    assert not shared._lanes


async def test_a_key_has_both_turns_again_after_a_while_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SHARED_SECONDS", 0.0)
    shared = Turns()
    other, *mine = (Turn(shared, name) for name in "2111")
    await other.take()
    other.give()
    await mine[0].take()
    await mine[1].take()
    last = asyncio.create_task(mine[2].take())
    await settle()
    assert not last.done()
    for one in mine[:2]:
        one.give()
    await last
    mine[2].give()
    assert not shared._lanes


async def test_a_slow_body_takes_no_turn() -> None:
    requests, bodies = Requests(), asyncio.Queue[Any]()
    bodies.put_nowait({"type": "http.request", "body": b"x", "more_body": True})
    await requests.arrive("slow", "also slow", bodies=bodies)
    await requests.arrive("a")
    assert requests.begun == ["a"]
    bodies.put_nowait({"type": "http.disconnect"})
    bodies.put_nowait(BODY)
    await settle()
    assert len(requests.begun) == 2
    await requests.end()


@pytest.mark.parametrize("has_turn", [False, True])
async def test_a_cancelled_request_passes_its_turn_on(has_turn: bool) -> None:
    turns = Turns()
    first, second, cancelled, last = (Turn(turns, "1") for _ in range(4))
    await first.take()
    await second.take()
    waiting = [asyncio.create_task(one.take()) for one in (cancelled, last)]
    await settle()
    if has_turn:
        first.give()  # to the next one, which has not run yet
    waiting[0].cancel()
    await settle()
    assert waiting[1].done() is has_turn
    first.give()
    await waiting[1]
    for one in (second, last):
        one.give()
    assert not turns._lanes


async def test_a_request_that_waits_for_something_else_loses_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST_TURN", 0.0)
    requests = Requests()
    await requests.arrive(*"abcdef")
    async with asyncio.timeout(60):
        while len(requests.begun) < 6:
            await asyncio.sleep(0)
    await requests.end()


async def test_outside_of_a_request_nothing_waits_for_a_turn() -> None:
    assert await without_turn(asyncio.sleep(0, "answer")) == "answer"

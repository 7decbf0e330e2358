"""The short way of calls with a key under ASGI: the same answers as by all of the middleware."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.core.signals import request_finished, request_started

from snakepit.pools.api import key_requests
from snakepit.pools.api.key_requests import KeyHandler, KeyRequests
from snakepit.pools.api.request_turns import RequestTurns
from snakepit.pools.broker.errors import QueueFull
from snakepit.pools.client import Chunk
from tests.process.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db(transaction=True)
URL = "/api/pools/digits/commands/echo"
PATIENCE = 60


def scope(key: str, path: str = URL, **headers: str) -> dict[str, Any]:
    given = {"host": "localhost", "content-type": "application/json", "authorization": key, **headers}
    encoded = [(name.encode(), value.encode()) for name, value in given.items() if value]
    made = {"type": "http", "method": "POST", "path": path, "headers": encoded, "query_string": b""}
    return made | {"http_version": "1.1", "scheme": "http", "server": ("localhost", 80), "client": ("10.0.0.1", 9)}


Answered = tuple[int, dict[str, str], bytes]  # status, headers, body


async def asked(application: Any, scope: dict[str, Any], body: bytes = b'{"a": 1}') -> Answered:
    server = ApplicationCommunicator(application, scope)
    await server.send_input({"type": "http.request", "body": body})
    start = await server.receive_output(PATIENCE)
    content = (await server.receive_output(PATIENCE))["body"]
    await server.wait(PATIENCE)
    headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return start["status"], headers, content


@pytest.mark.parametrize("case", ["an answer", "an error", "a wrong key", "a wrong host", "a wrong body"])
async def test_the_short_way_gives_the_same_answer(case: str, broker: FakeClient, amake_key: Any) -> None:
    key = "Bearer nonsense" if case == "a wrong key" else await amake_key()
    broker.error = QueueFull("full", retry_after=2.0) if case == "an error" else None
    given = scope(key, **({"host": "elsewhere.example"} if case == "a wrong host" else {}))
    body = b"[" if case == "a wrong body" else b'{"a": 1}'
    django = get_asgi_application()
    short = KeyRequests(django)
    assert isinstance(short._handler, KeyHandler)
    expected = await asked(django, given, body)
    assert await asked(short, given, body) == expected
    assert expected[0] == {"an answer": 200, "an error": 429, "a wrong key": 401}.get(case, 400)
    assert case == "a wrong host" or "x-frame-options" in expected[1]


@pytest.mark.parametrize(
    "given", [scope(""), scope("Bearer x", "/api/pools/digits/recycle"), scope("Bearer x") | {"method": "GET"}]
)
async def test_other_requests_take_the_way_of_the_project(given: dict[str, Any]) -> None:
    seen = []

    async def application(*_: Any) -> None:
        seen.append(True)

    await KeyRequests(application)(given, None, None)
    assert seen == [True]


async def test_a_call_that_waits_for_its_broker_does_not_hold_up_the_calls_behind_it(
    broker: FakeClient, amake_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit.pools.api.turns.LONGEST_TURN", 1e6)
    reached, answer, execute = list[str](), asyncio.Event(), broker.aexecute

    async def waits(*words: Any, **options: Any) -> Any:
        reached.append(words[1])
        await answer.wait()
        return await execute(*words, **options)

    monkeypatch.setattr(broker, "aexecute", waits)
    short, key = RequestTurns(KeyRequests(get_asgi_application())), await amake_key()
    sent = [asyncio.create_task(asked(short, scope(key))) for _ in range(4)]
    async with asyncio.timeout(PATIENCE):
        while len(reached) < 4:
            await asyncio.sleep(0.01)
    answer.set()
    assert [status for status, _, _ in await asyncio.gather(*sent)] == [200] * 4


def test_with_a_middleware_of_the_project_no_request_takes_the_short_way(settings: Any) -> None:
    application = object()
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.gzip.GZipMiddleware"]
    assert KeyRequests(application)._handler is application


async def test_a_client_that_leaves_cancels_its_call(broker: FakeClient, amake_key: Any) -> None:
    broker.script = [Chunk("first"), asyncio.Event().wait]
    server = ApplicationCommunicator(KeyHandler(), scope(await amake_key(), accept="text/event-stream"))
    await server.send_input({"type": "http.request", "body": b"{}"})
    assert (await server.receive_output(PATIENCE))["status"] == 200
    assert b"first" in (await server.receive_output(PATIENCE))["body"]
    await server.send_input({"type": "http.disconnect"})
    await asyncio.wait_for(broker.streams[0].closed.wait(), PATIENCE)
    await server.wait(PATIENCE)


async def test_receivers_of_the_project_get_the_signals_in_a_thread(broker: FakeClient, amake_key: Any) -> None:
    """They may read the database, which Django refuses on the thread of an event loop."""
    given, seen = scope(await amake_key()), []

    def note(**_: Any) -> None:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        seen.append(True)

    assert key_requests.runs_on_loop(request_started)
    request_started.connect(note)
    request_finished.connect(note)
    try:
        assert (await asked(KeyHandler(), given))[0] == 200
    finally:
        request_started.disconnect(note)
        request_finished.disconnect(note)
    assert seen == [True, True]

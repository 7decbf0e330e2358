"""Whose turns and bounds a request has: what proves a key or a user, and that nothing else does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.db import OperationalError, connections
from django.test import AsyncClient

from snakepit.pools.api import identities as module
from snakepit.pools.api.identities import Identities, Identity, source_of
from snakepit.pools.api.request_turns import RequestTurns
from snakepit.pools.api.stream_tokens import Bearer
from snakepit.pools.models import ApiKey, known_keys

pytestmark = pytest.mark.django_db(transaction=True)
PATIENCE = 60
STRANGER = Identity("address 10.0.0.1", proven=False)


def scope(path: str = "/api/jobs", query: str = "", client: str = "10.0.0.1", **headers: str) -> dict[str, Any]:
    encoded = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "path": path, "headers": encoded, "query_string": query.encode(), "client": (client, 9)}


async def in_thread(work: Callable[[], Any]) -> Any:
    """Work with the database in a thread that keeps no connection."""

    def done() -> Any:
        try:
            return work()
        finally:
            connections.close_all()

    return await sync_to_async(done)()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKUP_SECONDS", PATIENCE)


@pytest.fixture
async def cookie(amake_key: Any) -> str:
    """The session cookie of ada, who also has a key."""
    await amake_key()
    client = AsyncClient()
    await in_thread(lambda: client.force_login(get_user_model().objects.get(username="ada")))
    return client.cookies[django_settings.SESSION_COOKIE_NAME].value


async def test_a_key_is_proven_by_a_lookup_that_its_next_requests_share(
    amake_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = await amake_key()
    found, lookups = Identities(), []
    find = ApiKey.find
    monkeypatch.setattr(ApiKey, "find", classmethod(lambda _, secret: lookups.append(secret) or find(secret)))
    known_keys.forget()
    secret = header.removeprefix("Bearer ")
    spellings = [header, f"bearer  {secret}", f"BEARER \t{secret} "]
    names = await asyncio.gather(*(found.of(scope(authorization=one)) for one in spellings * 10))
    key = await in_thread(lambda: ApiKey.objects.get().pk)
    assert set(names) == {Identity(f"key {key}", proven=True)}
    assert len(lookups) == 1


async def test_a_key_in_use_waits_for_no_lookup_of_wrong_keys(amake_key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    header, go_on, read = await amake_key(), threading.Event(), module.read_key
    found, lookups = Identities(), []
    assert (await found.of(scope(authorization=header))).proven
    monkeypatch.setattr(known_keys, "KEPT", 0.0)  # views would look it up again

    def held(secret: str) -> Any:
        lookups.append(secret)
        go_on.wait(PATIENCE)
        return read(secret)

    monkeypatch.setattr(module, "read_key", held)
    false = [f"Bearer snk_{number:012x}_" + "a" * 43 for number in range(module.MOST_LOOKUPS + 5)]
    flood = [asyncio.create_task(found.of(scope(authorization=one))) for one in false]
    await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
    assert sum(one.done() for one in flood) == 5  # beyond the bound nothing is looked up
    assert (await found.of(scope(authorization=header))).proven
    go_on.set()
    assert await asyncio.wait_for(asyncio.gather(*flood), PATIENCE) == [STRANGER] * len(flood)
    assert len(lookups) == module.MOST_LOOKUPS
    (state,) = found._lookups.values()
    assert (dict(state.waiting), state.pending, state.turns._lanes) == ({}, {}, {})


async def test_a_session_is_proven_for_the_user_that_its_stream_tokens_are_of(cookie: str) -> None:
    name = django_settings.SESSION_COOKIE_NAME
    ada = Identity("user ada", proven=True)
    assert await Identities().of(scope("/", cookie=f"a=b; {name}={cookie}")) == ada
    token = Bearer("a job", 0, "ada").token()
    assert await Identities().of(scope("/api/jobs/x/events", f"token={token}")) == ada
    token = Bearer("a job", 12, "ada").token()
    assert await Identities().of(scope("/api/jobs/x/events", f"token={token}")) == Identity("key 12", proven=True)


@pytest.mark.parametrize(
    "given",
    [
        scope(),
        scope(authorization="Bearer nonsense"),
        scope(authorization=f"Bearer snk_{'0' * 12}_{'a' * 43}"),
        scope(authorization="Basic YWRhOmFkYQ=="),
        scope(cookie="sessionid=0123456789abcdef0123456789abcdef"),
        scope(cookie="sessionid=; csrftoken=x"),
        scope("/api/jobs/x/events", "token=nonsense"),
        scope("/api/jobs/x/events", "token="),
    ],
)
async def test_what_nothing_proves_is_of_its_address(given: dict[str, Any]) -> None:
    assert await Identities().of(given) == STRANGER


async def test_a_valid_key_proves_nothing_beside_another_header_or_scheme(amake_key: Any, cookie: str) -> None:
    header = await amake_key()
    twice = scope(authorization=header)
    twice["headers"].append((b"authorization", b"Bearer other"))
    assert await Identities().of(twice) == STRANGER
    assert await Identities().of(scope(authorization=header.replace("Bearer", "Basic"))) == STRANGER
    # A wrong key is refused without a look at the session, so it has no part of the session's turns.
    assert await Identities().of(scope(authorization="Bearer nonsense", cookie=f"sessionid={cookie}")) == STRANGER


async def test_a_revoked_key_and_a_session_of_an_inactive_user_prove_nothing(amake_key: Any, cookie: str) -> None:
    header = await amake_key()
    await in_thread(lambda: [key.revoke() for key in ApiKey.objects.all()])
    assert await Identities().of(scope(authorization=header)) == STRANGER
    await in_thread(lambda: get_user_model().objects.update(is_active=False))
    assert await Identities().of(scope(cookie=f"sessionid={cookie}")) == STRANGER


async def test_a_session_that_an_old_secret_signed_keeps_its_key(cookie: str, settings: Any) -> None:
    """Django's own lookup gives such a session another key, which only its own answer can tell the browser."""
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another secret of the site, which is long enough"
    for _ in range(2):
        assert (await Identities().of(scope(cookie=f"sessionid={cookie}"))).proven


async def test_without_a_database_a_request_is_not_proven_and_the_next_ones_do_not_look(
    amake_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, lookups = await amake_key(), []
    known_keys.forget()

    def away(secret: str) -> Any:
        lookups.append(secret)
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(module, "read_key", away)
    monkeypatch.setattr(module, "AWAY_SECONDS", 1e6)
    found = Identities()
    assert await asyncio.gather(*(found.of(scope(authorization=header)) for _ in range(10))) == [STRANGER] * 10
    assert await found.of(scope(authorization=header)) == STRANGER
    assert len(lookups) == 1


async def test_a_lookup_that_does_not_end_holds_up_no_request(amake_key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    header, go_on = await amake_key(), threading.Event()
    known_keys.forget()

    def silent(secret: str) -> Any:
        go_on.wait(PATIENCE)
        raise OperationalError("too late")

    monkeypatch.setattr(module, "read_key", silent)
    monkeypatch.setattr(module, "LOOKUP_SECONDS", 0.05)
    assert await Identities().of(scope(authorization=header)) == STRANGER
    assert not go_on.is_set()
    go_on.set()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (scope(client="2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64"),
        (scope(client="::ffff:10.0.0.9"), "10.0.0.9"),
        (scope(client="10.9.0.1", x_forwarded_for="6.6.6.6, 203.0.113.9"), "203.0.113.9"),
        (scope(client="203.0.113.1", x_forwarded_for="6.6.6.6"), "203.0.113.1"),
        (scope(client="not an address"), ""),
        (scope() | {"client": None}, ""),
    ],
)
def test_the_address_is_what_named_proxies_say(given: dict[str, Any], expected: str, settings: Any) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "TRUSTED_PROXIES": ["10.9.0.0/16"]}
    assert source_of(given) == expected


async def test_keys_sessions_and_addresses_take_turns_of_their_own(
    amake_key: Any, cookie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit.pools.api.turns.LONGEST_TURN", 1e6)
    monkeypatch.setattr("snakepit.pools.api.turns.WHILE_SHARED", 2)
    monkeypatch.setattr("snakepit.pools.api.request_turns.identities", Identities())
    begun, go_on, taken = list[str](), asyncio.Event(), asyncio.Condition()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        async with taken:
            begun.append(scope["name"])
            taken.notify_all()
        await go_on.wait()

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    one, other = await amake_key(), await amake_key()
    false = "Bearer snk_{:012x}_" + "a" * 43
    given = [
        *(("one", scope(authorization=one)) for _ in range(3)),
        *(("other", scope(authorization=other)) for _ in range(3)),
        *(("ada", scope("/api/pools", cookie=f"sessionid={cookie}")) for _ in range(3)),
        *(("stranger", scope(authorization=false.format(number))) for number in range(3)),
        *(("far", scope(client="192.0.2.7")) for _ in range(3)),
        ("outside", scope("/elsewhere", authorization=one)),
    ]
    wrapped = RequestTurns(application)
    sent = [asyncio.create_task(wrapped(one | {"name": name}, receive, None)) for name, one in given]
    async with asyncio.timeout(PATIENCE), taken:
        await taken.wait_for(lambda: len(begun) >= 11)
    for _ in range(50):
        await asyncio.sleep(0)
    assert sorted(begun) == sorted([*["one", "other", "ada", "stranger", "far"] * 2, "outside"])
    go_on.set()
    await asyncio.wait_for(asyncio.gather(*sent), PATIENCE)
    assert len(begun) == len(given)

"""Limits by key and owner, as a caller of the API meets them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connections
from django.test import AsyncClient, Client

from snakepit.pools import jobs
from snakepit.pools.broker import caller as callers
from snakepit.pools.broker.caller import CallerIdentity, acting_for
from snakepit.pools.broker.errors import LimitReached, QueueFull
from snakepit.pools.broker.quotas import reached
from snakepit.pools.client import Answer
from snakepit.pools.jobs import messages
from snakepit.pools.models import ApiKey, Job, Pool
from tests.process.integration.fakes import FakeClient

CALL = "/api/pools/digits/commands/classify"


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch, db: None) -> Pool:
    monkeypatch.setattr(messages, "send", lambda *_: True)
    return Pool.objects.create(name="digits", adapter="digits", size=1)


def submit(client: Client, key: str, **more: Any) -> Any:
    body = {"pool": "digits", "command": "classify", **more}
    return client.post("/api/jobs", json.dumps(body), content_type="application/json", headers={"Authorization": key})


def send(client: Client, key: str, body: bytes = b"{}") -> Any:
    return client.post(CALL, body, content_type="application/json", headers={"Authorization": key})


@pytest.mark.django_db
def test_a_key_fills_only_its_share_of_the_jobs_of_a_pool(
    client: Client, broker: FakeClient, pool: Pool, make_key: Callable[..., str], settings: Any
) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "JOBS_QUEUED_LIMIT": 8}  # a key has 2 of them, its owner 4
    keys = [make_key() for _ in range(3)]
    outcomes = [[submit(client, key).status_code for _ in range(3)] for key in keys]
    assert outcomes == [[201, 201, 429], [201, 201, 429], [429, 429, 429]]
    answer = submit(client, keys[0])
    details = {"limit": "jobs_waiting", "value": 2, "of": "key"}
    assert answer.json()["error"] | {"message": ""} == {
        "code": "limit_reached", "message": "", "outcome": "not_started", "details": details,
    }  # fmt: skip
    assert (answer["Retry-After"], answer["RateLimit"]) == ("5", '"jobs_waiting";r=0;t=5')
    assert submit(client, keys[2]).json()["error"]["details"]["of"] == "owner"
    other = jobs.submit("digits", "classify", owner="grace")  # another user has room
    assert other.pk
    assert Job.objects.count() == 5


@pytest.mark.django_db
def test_the_size_of_the_jobs_of_a_key_is_bounded(
    client: Client, broker: FakeClient, pool: Pool, make_key: Callable[..., str], settings: Any
) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "JOBS_QUEUED_BYTES": 4096}
    key = make_key()
    assert submit(client, key, arguments={"pixels": [1]}).status_code == 201
    answer = submit(client, key, arguments={"pixels": ["x" * 1024]})
    assert answer.json()["error"]["details"] == {"limit": "jobs_waiting_bytes", "value": 1024, "of": "key"}
    with pytest.raises(QueueFull, match="JOBS_QUEUED_BYTES"):
        jobs.submit("digits", "classify", {"pixels": ["x" * 4096]})


@pytest.mark.django_db
@pytest.mark.parametrize(("field", "value"), [("run_after", "8999-01-01T00:00:00Z"), ("retention", 10**9)])
def test_a_job_that_would_stay_too_long_is_refused(
    field: str, value: Any, client: Client, broker: FakeClient, pool: Pool, make_key: Callable[..., str]
) -> None:
    answer = submit(client, make_key(), **{field: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["details"] == {"limit": field, "value": callers.YEAR}


@pytest.mark.django_db(transaction=True)
def test_concurrent_submissions_do_not_pass_the_limit(pool: Pool, settings: Any) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "JOBS_QUEUED_LIMIT": 20}
    together, refused = threading.Barrier(8), []

    def work() -> None:
        together.wait(60)
        left = 4
        while left:
            try:
                with acting_for(CallerIdentity("snk_1", "ada", key_share=0.25)):
                    jobs.submit("digits", "classify", owner="ada")
                left -= 1
            except LimitReached as error:
                refused.append(error.details)
                left -= 1
            except OperationalError:  # SQLite in memory refuses a second writer instead of waiting for it
                continue
        connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert Job.objects.count() == 5
    assert len(refused) == 27


@pytest.mark.django_db
def test_a_call_has_the_identity_and_the_limits_of_its_key(
    client: Client, broker: FakeClient, make_key: Callable[..., str], settings: Any
) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "KEY_LIMITS": {"calls_in_flight": 9, "calls_per_second": 5}}
    seen: list[CallerIdentity | None] = []
    broker.answers["classify"] = lambda arguments: seen.append(callers.current())
    key = make_key(limits={"calls_per_second": 50})
    answer = send(client, key)
    assert answer.status_code == 200
    (caller,) = seen
    assert caller is not None
    assert (caller.key, caller.owner) == (ApiKey.objects.get().visible, "ada")
    assert (caller.key_limits.calls_per_second, caller.key_limits.calls_in_flight) == (50, 9)
    assert answer["RateLimit-Policy"] == '"calls_per_second";q=100;w=2'
    assert callers.current() is None


@pytest.mark.django_db
def test_an_answer_shows_what_is_left_of_the_rate(
    client: Client, broker: FakeClient, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def aexecute(*_: Any, **__: Any) -> Answer:
        return Answer(7, "call-1", "digits-1", 0.0, 0.0, 41, 1.5)

    monkeypatch.setattr(broker, "aexecute", aexecute)
    key = make_key()
    assert send(client, key)["RateLimit"] == '"calls_per_second";r=41;t=2'
    broker.error = reached("key", "snk_1", "calls_per_second", 5, 0.2)
    monkeypatch.undo()
    broker_answer = client.get("/api/status", headers={"Authorization": key})
    assert broker_answer["RateLimit-Policy"]


@pytest.mark.django_db
def test_the_body_of_a_key_may_have_a_smaller_bound(
    client: Client, broker: FakeClient, make_key: Callable[..., str]
) -> None:
    key = make_key(limits={"body_bytes": 10})
    assert send(client, key, b'{"pixels": []}').status_code == 413
    assert send(client, key, b"{}").status_code == 200


@pytest.mark.django_db
def test_a_key_sees_its_limits_and_their_use(
    client: Client, broker: FakeClient, pool: Pool, make_key: Callable[..., str]
) -> None:
    key = make_key(limits={"jobs_waiting": 3})
    submit(client, key, arguments={"pixels": [1]})
    shown = client.get("/api/keys/me", headers={"Authorization": key}).json()
    assert (shown["key"], shown["owner"], shown["broker"]) == (ApiKey.objects.get().visible, "ada", "reachable")
    assert shown["limits"]["key"]["jobs_waiting"] == 3
    assert shown["jobs"]["digits"]["key_jobs_waiting"] == {"used": 1, "limit": 3}
    assert shown["streams"] == {"key": 0, "owner": 0}


@pytest.mark.django_db(transaction=True)
async def test_the_open_streams_of_a_key_are_bounded(
    async_client: AsyncClient, broker: FakeClient, amake_key: Any, settings: Any
) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "KEY_LIMITS": {"streams": 2}}
    headers = {"Authorization": await amake_key(), "Accept": "text/event-stream"}

    async def begin() -> Any:
        return await async_client.post(CALL, b"{}", content_type="application/json", headers=headers)

    opened = [await begin() for _ in range(2)]
    refused = await begin()
    assert refused.status_code == 429
    assert json.loads(refused.content)["error"]["details"] == {"limit": "streams", "value": 2, "of": "key"}
    assert len(broker.streams) == 2  # the refused call was not made
    assert [part async for part in opened.pop().streaming_content]
    opened.append(await begin())
    assert opened[-1].status_code == 200
    for response in opened:
        assert [part async for part in response.streaming_content]
    await sync_to_async(connections.close_all)()  # of the thread that the requests borrowed

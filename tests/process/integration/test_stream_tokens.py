"""Tokens of streams: what they open, for how long, and that no log has them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import signing
from django.test import AsyncClient, Client

from snakepit.pools.api import stream_tokens
from snakepit.pools.models import ApiKey, Job
from snakepit.pools.models.moments import utc_now

pytestmark = pytest.mark.django_db(transaction=True)


def ended_job(owner: str = "ada", pool: str = "digits") -> Job:
    job = Job.objects.create(pool=pool, command="classify", owner=owner)
    Job.objects.filter(pk=job.pk).move("cancelled", finished_at=utc_now(), expires_at=utc_now() + timedelta(days=1))
    return job


def issue(client: Client, job: Job, **headers: str) -> Any:
    body = json.dumps({"job": str(job.pk)})
    return client.post("/api/stream-tokens", body, content_type="application/json", headers=headers)


@pytest.fixture
def url(client: Client, make_key: Callable[..., str]) -> str:
    """The URL of a stream with its token, for the key of ada."""
    answer = issue(client, ended_job(), Authorization=make_key("run"))
    assert answer.status_code == 201
    return str(answer.json()["url"])


def test_a_token_opens_the_stream_of_its_job_without_a_header(client: Client, url: str) -> None:
    answer = client.get(url)
    assert (answer.status_code, answer["Content-Type"].partition(";")[0]) == (200, "text/event-stream")
    assert b"event: end" in b"".join(answer)


def test_a_token_opens_nothing_else(client: Client, url: str) -> None:
    token = url.partition("?")[2]
    assert client.get(f"/api/jobs/{ended_job().pk}/events?{token}").status_code == 401
    path = url.partition("/events?")[0]
    assert client.get(f"{path}?{token}").status_code == 401
    assert client.get(f"/api/jobs?{token}").status_code == 401
    assert client.get("/api/keys/me", headers={"Authorization": f"Bearer {token[6:]}"}).status_code == 401


@pytest.mark.parametrize("change", ["x", "", "a:b:c", "%00", "9" * 5000])
def test_a_wrong_token_is_refused_even_with_a_session(url: str, admin_client: Client, change: str) -> None:
    answer = admin_client.get(f"{url.partition('?')[0]}?token={change}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")


def test_an_old_token_is_refused(client: Client, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time() + stream_tokens.SECONDS + 1
    monkeypatch.setattr(signing.time, "time", lambda: later)
    assert client.get(url).status_code == 401


def test_a_token_ends_with_its_key(client: Client, url: str, django_user_model: Any) -> None:
    ApiKey.objects.update(scopes=["view"])
    assert client.get(url).status_code == 403
    ApiKey.objects.update(scopes=["run"], pools=["primes"])
    assert client.get(url).status_code == 404
    ApiKey.objects.update(pools=[])
    django_user_model.objects.update(is_active=False)
    assert client.get(url).status_code == 401
    django_user_model.objects.update(is_active=True)
    assert client.get(url).status_code == 200
    ApiKey.objects.get().revoke()
    assert client.get(url).status_code == 401


def test_a_session_has_tokens_too(client: Client, admin_client: Client, admin_user: Any) -> None:
    url = issue(admin_client, ended_job("grace")).json()["url"]
    assert client.get(url).status_code == 200
    type(admin_user).objects.update(is_superuser=False, is_staff=False)
    assert client.get(url).status_code == 404
    type(admin_user).objects.all().delete()
    assert client.get(url).status_code == 401


def test_no_token_is_issued_for_what_the_caller_may_not_read(client: Client, make_key: Callable[..., str]) -> None:
    others = ended_job("grace")
    assert issue(client, others, Authorization=make_key("run")).status_code == 404
    assert issue(client, others, Authorization=make_key("view")).status_code == 403
    assert issue(client, others, Authorization=make_key("view", "jobs")).status_code == 201


@pytest.mark.parametrize("path", ["", "/wrong"])
def test_no_log_has_a_token(client: Client, url: str, path: str, caplog: pytest.LogCaptureFixture) -> None:
    token = url.partition("=")[2]
    with caplog.at_level(logging.DEBUG):
        answer = client.get(url + path, RAW_URI=url, REQUEST_URI=url)
    assert token[:60] not in caplog.text
    request = answer.wsgi_request
    shown = f"{dict(request.GET)} {request.get_full_path()} {[v for k, v in request.META.items() if k != 'wsgi.input']}"
    assert token[:60] not in shown


async def test_the_access_log_of_an_asgi_server_has_no_token(url: str) -> None:
    answer = await AsyncClient().get(url)
    assert answer.status_code == 200
    assert answer.asgi_request.scope["query_string"] == b""
    async for _ in answer.streaming_content:
        pass

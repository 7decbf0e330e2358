"""What the API refuses or ends: impossible times, open streams of revoked keys; and that no answer is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import AsyncClient, Client

from snakepit.pools.api import streams
from snakepit.pools.client import Chunk
from snakepit.pools.models import ApiKey, Job
from tests.process.integration.fakes import FakeClient

URL = "/api/pools/digits/commands/classify"


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00%2B14:00"])
def test_an_impossible_time_is_refused_by_name(name: str, at: str, client: Client, make_key: Any) -> None:
    answer = client.get(f"/api/jobs?{name}={at}", headers={"Authorization": make_key()})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(f"{name}:")


@pytest.mark.django_db
@pytest.mark.parametrize("url", ["/api/pools", "/api/status", "/api/jobs", "/api/openapi.json", "/api/no", "/api/live"])
def test_answers_of_the_api_are_not_stored(
    url: str, client: Client, broker: FakeClient, make_key: Callable[..., str]
) -> None:
    key = make_key()
    for answer in (client.get(url, headers={"Authorization": key}), client.get(url), client.put(url)):
        assert answer["Cache-Control"] == "private, no-store"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", ["call", "job"])
@pytest.mark.parametrize(
    "change",
    [
        {"revoked_at": "2026-01-01T00:00:00Z"},
        {"scopes": ["operate"]},
        {"pools": ["x"]},
        {"is_superuser": False},
        {"is_active": False},
    ],
)
async def test_a_stream_ends_when_its_key_loses_its_right(
    what: str, change: dict[str, Any], async_client: AsyncClient, broker: FakeClient, amake_key: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(streams, "RIGHTS_SECONDS", 0.01)
    broker.script = [Chunk("first"), asyncio.Event().wait]
    headers = {"Authorization": await amake_key(), "Accept": "text/event-stream"}
    if what == "call":
        response = await async_client.post(URL, b"{}", content_type="application/json", headers=headers)
    else:
        job = await Job.objects.acreate(pool="digits", command="classify", owner="ada")
        response = await async_client.get(f"/api/jobs/{job.pk}/events", headers=headers)
    assert response["Cache-Control"] == "private, no-store"
    parts = aiter(response.streaming_content)
    if what == "call":
        assert b"first" in await anext(parts)
    await (get_user_model() if set(change) & {"is_superuser", "is_active"} else ApiKey).objects.aupdate(**change)
    rest = b"".join([part async for part in parts])
    assert b"event: error" in rest
    assert b'"code":"unauthenticated"' in rest
    if what == "call":
        assert broker.streams[0].closed.is_set()

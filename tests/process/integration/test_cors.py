"""Pages on another origin, with django-cors-headers and the settings that the page of the API shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient, Client

from snakepit.pools.broker.errors import QueueFull
from snakepit.pools.models import Job
from snakepit.pools.models.moments import utc_now
from tests.process.integration.fakes import FakeClient

pytest.importorskip("corsheaders", reason="django-cors-headers is not installed")
pytestmark = pytest.mark.django_db(transaction=True)
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "api.md"
ORIGIN = "https://app.example"
URL = "/api/pools/digits/commands/classify"


@pytest.fixture(autouse=True)
def documented(settings: Any) -> None:
    (block,) = (code for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "CORS_" in code)
    values: dict[str, Any] = {}
    exec(block, values)
    for name in values:
        if name.startswith("CORS_"):
            setattr(settings, name, values[name])
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "corsheaders"]
    settings.MIDDLEWARE = ["corsheaders.middleware.CorsMiddleware", *settings.MIDDLEWARE]


def preflight(client: Client, url: str, origin: str = ORIGIN, headers: str = "authorization,content-type") -> Any:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": headers}
    return client.options(url, headers=asked)


def test_a_preflight_passes_without_a_key(client: Client, broker: FakeClient) -> None:
    answer = preflight(client, URL)
    assert (answer.status_code, answer["Access-Control-Allow-Origin"]) == (200, ORIGIN)
    allowed = answer["Access-Control-Allow-Headers"].split(", ")
    assert {"authorization", "content-type", "idempotency-key", "last-event-id"} <= set(allowed)
    assert "POST" in answer["Access-Control-Allow-Methods"]
    assert broker.calls == []


def test_a_page_reads_results_and_errors(client: Client, broker: FakeClient, make_key: Callable[..., str]) -> None:
    def call(**headers: str) -> Any:
        return client.post(URL, "{}", content_type="application/json", headers={"Origin": ORIGIN, **headers})

    key = {"Authorization": make_key("run")}
    answers = [call(**key), call()]
    broker.error = QueueFull("full", retry_after=1.0)
    answers.append(call(**key))
    assert [one.status_code for one in answers] == [200, 401, 429]
    assert {one["Access-Control-Allow-Origin"] for one in answers} == {ORIGIN}
    assert answers[2]["Retry-After"]
    assert "retry-after" in answers[2]["Access-Control-Expose-Headers"]


def test_every_header_of_the_api_that_a_client_needs_is_readable(settings: Any) -> None:
    folders = [PAGE.parents[2] / "pools" / name for name in ("api", "web")]
    source = "".join(path.read_text() for folder in folders for path in folder.glob("*.py"))
    sent = {name.lower() for name in re.findall(r'"(RateLimit[\w-]*|Retry-After|Location|X-Snakepit-\w+)"', source)}
    assert sent == set(settings.CORS_EXPOSE_HEADERS)


def test_another_origin_and_a_cookie_get_nothing(client: Client, admin_client: Client) -> None:
    other = preflight(client, URL, origin="https://evil.example")
    assert "Access-Control-Allow-Origin" not in other.headers
    answer = admin_client.get("/api/keys/me", headers={"Origin": ORIGIN})
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Access-Control-Allow-Origin" not in client.get("/admin/login/", headers={"Origin": ORIGIN}).headers


async def test_a_page_reads_a_stream_with_a_token(broker: FakeClient, amake_key: Any) -> None:
    def ended_job() -> str:
        job = Job.objects.create(pool="digits", command="classify", owner="ada")
        now = utc_now()
        Job.objects.filter(pk=job.pk).move("cancelled", finished_at=now, expires_at=now + timedelta(days=1))
        return str(job.pk)

    job, client = await sync_to_async(ended_job)(), AsyncClient()
    headers = {"Authorization": await amake_key(), "Origin": ORIGIN}
    body = json.dumps({"job": job})
    issued = await client.post("/api/stream-tokens", body, content_type="application/json", headers=headers)
    answer = await client.get(issued.json()["url"], headers={"Origin": ORIGIN})
    assert (answer.status_code, answer["Access-Control-Allow-Origin"]) == (200, ORIGIN)
    assert b"event: end" in b"".join([part async for part in answer.streaming_content])

"""Rows with impossible names, which an old release or a direct write to the database may leave, take no page away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from datetime import timezone as zone
from typing import Any
from urllib.parse import unquote

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.urls import resolve, reverse
from django.utils import timezone

from snakepit.pools.dashboard.hub import Hub
from snakepit.pools.models import ApiKey, Audit, Event, Job, Node, Pool, Worker
from tests.process.integration.fakes import FakeClient, unreachable

BAD = ["a/b", "..", "%", "a%2Fb", "x\ny", "<b>", "?a=b#c", "ü"]
PAGES = [
    "/",
    "/pools/",
    "/workers/",
    "/workers/?state=gone",
    "/nodes/",
    "/events/",
    "/jobs/",
    "/audit/",
    "/diagnostics/",
]


@pytest.fixture
def root(client: Client, django_user_model: Any, monkeypatch: pytest.MonkeyPatch) -> Client:
    hub = Hub()
    for module in ("page", "stream", "series"):
        monkeypatch.setattr(f"snakepit.pools.dashboard.{module}.hub", hub)
    client.force_login(django_user_model.objects.create_superuser("root"))
    return client


@pytest.fixture
def bad_rows(db: None) -> list[Job]:
    now, jobs = timezone.now(), []
    for bad in BAD:
        node = Node.objects.create(name=f"node {bad}", started_at=now, seen_at=now)
        Worker.objects.create(node=node, worker_id=bad, pool=bad, state="gone", gone_at=now, seen_at=now)
        Pool.objects.create(name=bad, adapter="digits")
        Event.objects.create(at=now, kind="operator.acted", pool=bad, worker=bad, node=bad, message=bad)
        Audit.objects.create(actor=bad, action="recycle", pool=bad, target=bad, outcome="worker_unknown")
        jobs.append(Job.objects.create(pool=bad, command=bad))
    Audit.objects.create(actor="x", action="kill", pool="", target="", outcome="done")
    Event.objects.create(at=now, kind="operator.acted", pool="", worker="", message="nothing is named")
    return jobs


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("url", PAGES)
def test_a_row_with_an_impossible_name_takes_no_page_away(
    url: str, away: bool, root: Client, bad_rows: list[Job], broker: FakeClient
) -> None:
    """Without a broker the pages show rows."""
    broker.error = unreachable() if away else None
    assert root.get(url).status_code == 200


def test_the_page_of_a_job_with_an_impossible_name_opens(root: Client, bad_rows: list[Job], broker: FakeClient) -> None:
    for job in bad_rows:
        assert root.get(f"/jobs/{job.pk}/").status_code == 200


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_a_row_with_a_moment_at_the_end_of_time_takes_no_page_away(
    zone: str, root: Client, broker: FakeClient, settings: Any
) -> None:
    """In another zone, the first and last day of the calendar have no local time."""
    settings.TIME_ZONE = zone
    job = Job.objects.create(pool="digits", command="classify", run_after=timezone.now())
    for moment in (datetime.max, datetime.min):
        ends = moment.replace(tzinfo=UTC)
        Job.objects.filter(pk=job.pk).update(run_after=ends, deadline=ends, expires=ends)
        ApiKey.objects.all().delete()
        ApiKey.objects.create(name="far", owner=get_user_model().objects.get(), prefix="1", digest="1", expires_at=ends)
        Audit.objects.create(actor="x", action="kill", pool="", target="", outcome="done", at=ends)
        Event.objects.create(at=ends, kind="operator.acted", pool="", worker="", message="long ago")
        pages = [
            f"/jobs/{job.pk}/",
            "/admin/snakepit_pools/apikey/",
            "/admin/snakepit_pools/job/",
            f"/api/jobs/{job.pk}",
        ]
        for url in (*PAGES, *pages, "/api/jobs", "/api/audit", "/api/events", "/api/jobs/export"):
            assert root.get(url).status_code == 200, url


@pytest.mark.parametrize("name", ["run_after", "deadline", "expires"])
@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
def test_a_moment_at_the_end_of_time_is_refused_by_name(
    name: str, moment: str, client: Client, make_key: Any, broker: FakeClient
) -> None:
    Pool.objects.create(name="digits", adapter="digits", size=1)
    body = {"pool": "digits", "command": "classify", name: moment}
    answer = client.post("/api/jobs", body, content_type="application/json", headers={"Authorization": make_key()})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(f"{name}: ")


def test_a_moment_with_any_offset_of_python_is_one_for_the_database(
    client: Client, make_key: Any, broker: FakeClient
) -> None:
    """PostgreSQL refuses offsets of 16 hours and more by itself."""
    Pool.objects.create(name="digits", adapter="digits", size=1)
    headers = {"Authorization": make_key("run", "view", "jobs")}
    tomorrow = timezone.now().replace(microsecond=0) + timedelta(days=1)
    run_after = tomorrow.astimezone(zone(timedelta(hours=22, minutes=8))).isoformat()
    body = {"pool": "digits", "command": "classify", "run_after": run_after}
    made = client.post("/api/jobs", body, content_type="application/json", headers=headers)
    assert made.status_code == 201, made.content
    (job,) = Job.objects.all()
    assert job.run_after == tomorrow
    for times, found in (("since=2724-07-10T20:22:46%2B22:08", 0), ("until=2724-07-10T20:22:46-22:08", 1)):
        answer = client.get(f"/api/jobs?{times}", headers=headers)
        assert (answer.status_code, len(answer.json()["jobs"])) == (200, found)


@pytest.mark.parametrize("name", [*BAD, "", ".", "...", "digits-1-2", "a/../b"])
def test_each_name_has_a_url_that_leads_back_to_it(name: str) -> None:
    url = reverse("snakepit:worker-kill", args=[name])
    found = resolve(unquote(url))
    assert (found.view_name, found.kwargs) == ("snakepit:worker-kill", {"ident": name})


def test_an_order_for_a_name_that_no_worker_has_is_refused_and_breaks_no_page(
    root: Client, broker: FakeClient, make_key: Any
) -> None:
    key = make_key()
    for name in ("a/b", "..", "a\nb", "\x1b[31m"):
        answer = Client().post(
            "/api/pools/digits/recycle",
            {"worker": name},
            content_type="application/json",
            headers={"Authorization": key},
        )
        assert answer.status_code == 400
        assert "worker" in answer.json()["error"]["details"]["fields"]
    assert root.get("/audit/").status_code == 200


@pytest.mark.skipif(connection.vendor != "sqlite", reason="other databases check the type of a column")
def test_a_row_that_cannot_be_shown_is_named_and_the_list_of_pools_stays(
    broker: FakeClient, make_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key()
    Pool.objects.create(name="good", adapter="digits")
    Pool.objects.create(name="bad", adapter="digits")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE snakepit_pool SET updated_at = 'never' WHERE name = 'bad'")
    answer = Client().get("/api/pools", headers={"Authorization": key})
    assert answer.status_code == 200
    assert [pool["name"] for pool in answer.json()["pools"]] == ["good"]
    (bad,) = answer.json()["bad"]
    assert bad["row"] == "bad"
    assert bad["problem"].startswith("updated_at:")
    answer = Client().get("/api/pools/bad", headers={"Authorization": key})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "definition_invalid")

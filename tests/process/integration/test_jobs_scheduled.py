"""Jobs that wait for a time show the state `scheduled`, on every surface."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from django.urls import reverse

from snakepit.pools import jobs
from snakepit.pools.cli.main import run
from snakepit.pools.dashboard.hub import Hub
from snakepit.pools.dashboard.timeline import timeline
from snakepit.pools.jobs import gauges, leases, messages
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.models import Job, Pool
from snakepit.pools.models.moments import utc_now
from tests.process.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def ready(monkeypatch: pytest.MonkeyPatch, broker: FakeClient) -> None:
    monkeypatch.setattr("snakepit.pools.dashboard.page.hub", Hub())
    monkeypatch.setattr(messages, "send", lambda *_: True)
    Pool.objects.create(name="digits", adapter="digits", size=1)


@pytest.fixture
def waiting() -> dict[str, Job]:
    """One job of each kind of waiting."""
    later = jobs.submit("digits", "classify", {"n": 1}, run_after=utc_now() + timedelta(hours=1))
    paused = jobs.submit("digits", "classify", {"n": 2})
    held = leases.claim(paused.pk, "test", "node-1")
    assert held is not None
    assert leases.fail(held, Transition("queued", pause=600.0), None, {"outcome": "worker_lost"})
    past = jobs.submit("digits", "classify", {"n": 3}, run_after=utc_now() - timedelta(hours=1))
    now = jobs.submit("digits", "classify", {"n": 4})
    return {"later": later, "paused": paused.refresh(), "past": past, "now": now}


def test_a_job_that_waits_for_a_time_is_scheduled(waiting: dict[str, Job]) -> None:
    shown = {name: job.shown_state for name, job in waiting.items()}
    assert shown == {"later": "scheduled", "paused": "scheduled", "past": "queued", "now": "queued"}
    assert set(Job.objects.shown_as("scheduled")) == {waiting["later"], waiting["paused"]}
    assert set(Job.objects.shown_as("queued")) == {waiting["past"], waiting["now"]}
    jobs.cancel(waiting["later"].pk)
    assert waiting["later"].refresh().shown_state == "cancelled"
    assert set(Job.objects.shown_as("cancelled")) == {waiting["later"]}


def test_rest_shows_and_filters_scheduled_jobs(
    client: Client, make_key: Callable[..., str], waiting: dict[str, Job]
) -> None:
    headers = {"Authorization": make_key()}
    found = client.get("/api/jobs?state=scheduled", headers=headers).json()["jobs"]
    assert {job["id"] for job in found} == {str(waiting["later"].pk), str(waiting["paused"].pk)}
    assert {job["state"] for job in found} == {"scheduled"}
    found = client.get("/api/jobs?state=queued", headers=headers).json()["jobs"]
    assert {job["id"] for job in found} == {str(waiting["past"].pk), str(waiting["now"].pk)}
    answer = client.get(f"/api/jobs/{waiting['later'].pk}", headers=headers).json()
    assert answer["state"] == "scheduled"
    wrong = client.get("/api/jobs?state=waiting", headers=headers)
    assert (wrong.status_code, "scheduled" in wrong.json()["error"]["message"]) == (400, True)


def test_the_shell_shows_and_filters_scheduled_jobs(
    capsys: pytest.CaptureFixture[str], waiting: dict[str, Job]
) -> None:
    assert run(["jobs", "--state", "scheduled", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {job["id"] for job in found} == {str(waiting["later"].pk), str(waiting["paused"].pk)}
    assert {job["state"] for job in found} == {"scheduled"}


def test_the_admin_shows_and_filters_scheduled_jobs(admin_client: Client, waiting: dict[str, Job]) -> None:
    page = admin_client.get(reverse("admin:snakepit_pools_job_changelist"), {"state": "scheduled"})
    assert set(page.context["cl"].queryset) == {waiting["later"], waiting["paused"]}
    assert "scheduled</td>" in page.content.decode()
    one = admin_client.get(reverse("admin:snakepit_pools_job_change", args=[waiting["later"].pk]))
    assert "scheduled" in one.content.decode()


def test_the_dashboard_shows_filters_and_counts_scheduled_jobs(admin_client: Client, waiting: dict[str, Job]) -> None:
    page = admin_client.get(reverse("snakepit:jobs"), {"state": "scheduled"})
    assert {row["id"] for row in page.context["rows"]} == {str(waiting["later"].pk), str(waiting["paused"].pk)}
    assert {one["name"]: one["count"] for one in page.context["states"] if one["count"]} == {
        "scheduled": 2,
        "queued": 2,
    }
    assert 'class="state scheduled"' in page.content.decode()
    assert "data-until" in page.content.decode()
    one = admin_client.get(reverse("snakepit:job", args=[waiting["paused"].pk])).content.decode()
    assert 'data-job-state="scheduled"' in one
    assert timeline(waiting["later"], [])[-1].kind == "scheduled"


def test_the_metrics_count_jobs_that_have_not_ended(
    client: Client,
    make_key: Callable[..., str],
    waiting: dict[str, Job],
    broker: FakeClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def ametrics(timeout: float) -> str:
        return "snakepit_broker_sessions 1.0\n"

    monkeypatch.setattr(broker, "ametrics", ametrics, raising=False)
    leases.claim(waiting["now"].pk, "test", "node-1")
    headers = {"Authorization": make_key()}

    def lines() -> set[str]:
        text = client.get("/api/metrics", headers=headers).content.decode()
        return {line for line in text.splitlines() if line.startswith(("snakepit_jobs", "snakepit_broker"))}

    counts = {("scheduled", 2), ("blocked", 0), ("queued", 1), ("running", 1)}
    expected = {f'snakepit_jobs{{pool="digits",state="{state}"}} {count}.0' for state, count in counts}
    assert lines() == {"snakepit_broker_sessions 1.0", *expected}

    def away(_: Any) -> Any:
        raise OperationalError("away")

    monkeypatch.setattr(gauges.JobGauges, "collect", away)
    assert lines() == {"snakepit_broker_sessions 1.0"}

"""The jobs of a pool are paused, on each surface: they wait, and all else goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from snakepit.pools import jobs
from snakepit.pools.broker.errors import PoolUnknown
from snakepit.pools.cli.main import run as shell
from snakepit.pools.dashboard.hub import Hub
from snakepit.pools.dashboard.stored_state import read_stored_state
from snakepit.pools.jobs import claims, gauges, leases, messages
from snakepit.pools.models import Audit, Job, Pool
from snakepit.pools.models.moments import utc_now
from tests.process.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []

    def send_many(ids: Any, *_: Any, **__: Any) -> messages.Sent:
        found.extend(ids)
        return messages.Sent(tuple(ids))

    monkeypatch.setattr(messages, "send", lambda *_: True)
    monkeypatch.setattr(messages, "send_many", send_many)
    return found


@pytest.fixture(autouse=True)
def ready(monkeypatch: pytest.MonkeyPatch, broker: FakeClient, sent: list[Any]) -> None:
    monkeypatch.setattr("snakepit.pools.dashboard.page.hub", Hub())
    for name in ("digits", "primes"):
        Pool.objects.create(name=name, adapter=name, size=1)


def test_the_jobs_of_a_paused_pool_wait_and_those_of_others_run(
    sent: list[Any], django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    runs, waits, other = (jobs.submit(pool, "classify", {}) for pool in ("digits", "digits", "primes"))
    held = leases.claim(runs.pk, "test", "node-1")
    assert held is not None
    revision = Pool.objects.get(name="digits").revision
    assert jobs.pause_queue("digits")
    assert not jobs.pause_queue("digits")
    assert claims.claim(waits.pk, "test", "node-1") is None
    assert claims.claim_batch("digits", 5, "test", "node-1") == []
    assert leases.succeed(held, 7, {})
    assert [job.pk for job in claims.claim_batch("primes", 5, "test", "node-1")] == [other.pk]
    assert not jobs.submit("digits", "classify", {}).existed
    with django_capture_on_commit_callbacks(execute=True):
        assert jobs.resume_queue("digits")
    assert sent == [waits.pk]
    assert len(claims.claim_batch("digits", 5, "test", "node-1")) == 2
    assert Pool.objects.get(name="digits").revision == revision
    with pytest.raises(PoolUnknown):
        jobs.pause_queue("nothing")


def test_jobs_that_wait_on_purpose_are_not_overdue() -> None:
    jobs.submit("digits", "classify", {})
    Job.objects.update(queued_at=utc_now() - timedelta(hours=1))
    assert read_stored_state().overdue == 1
    jobs.pause_queue("digits")
    assert read_stored_state().overdue == 0
    assert 'snakepit_pool_queue_paused{pool="digits"} 1.0' in gauges.text()


def test_a_job_shows_that_its_pool_starts_no_jobs(client: Client, make_key: Callable[..., str]) -> None:
    job = jobs.submit("digits", "classify", {})
    headers = {"Authorization": make_key()}
    pool = Pool.objects.filter(name="digits")

    def shown() -> str:
        text: str = client.get(f"/api/jobs/{job.pk}", headers=headers).json()["waits_for"]
        return text

    assert shown() == ""
    jobs.pause_queue("digits")
    assert shown() == "waits because the jobs of the pool digits are paused"
    pool.update(enabled=False)
    assert shown() == "waits for the pool digits, which is disabled: enable the pool, or cancel the job"
    pool.delete()
    assert shown() == "waits for the pool digits, which does not exist: add the pool, or cancel the job"


def test_rest_pauses_and_resumes(client: Client, make_key: Callable[..., str]) -> None:
    headers = {"Authorization": make_key()}

    def post(action: str, key: dict[str, str] = headers) -> Any:
        path = f"/api/pools/digits/queue/{action}"
        return client.post(path, {"reason": "test"}, content_type="application/json", headers=key)

    assert post("pause").json() == {"pool": "digits", "queue_paused": True, "changed": True}
    assert client.get("/api/pools/digits", headers=headers).json()["queue_paused"] is True
    assert post("resume").json() == {"pool": "digits", "queue_paused": False, "changed": True}
    assert post("pause", {"Authorization": make_key("view")}).status_code == 403
    assert list(Audit.objects.order_by("pk").values_list("action", "outcome", "reason")) == [
        ("pause_queue", "done", "test"),
        ("resume_queue", "done", "test"),
        ("pause_queue", "permission_denied", ""),
    ]
    assert client.post("/api/pools/none/queue/pause", {}, "application/json", headers=headers).status_code == 404


def test_the_shell_pauses_and_resumes(capsys: pytest.CaptureFixture[str]) -> None:
    assert shell(["pause", "digits", "--jobs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["queue_paused"] is True
    assert Pool.objects.get(name="digits").queue_paused
    assert not Pool.objects.get(name="digits").paused
    assert shell(["resume", "digits", "--jobs"]) == 0
    assert "its jobs run" in capsys.readouterr().out
    assert not Pool.objects.get(name="digits").queue_paused
    assert shell(["pause", "nothing", "--jobs"]) == 1


def test_the_admin_pauses_and_resumes(admin_client: Client) -> None:
    pool = Pool.objects.get(name="digits")
    for action, paused in (("pause_queue", True), ("resume_queue", False)):
        data = {"action": action, "_selected_action": [pool.pk]}
        assert admin_client.post(reverse("admin:snakepit_pools_pool_changelist"), data).status_code == 302
        pool.refresh_from_db()
        assert (pool.queue_paused, pool.paused) == (paused, False)


def test_the_dashboard_pauses_shows_and_resumes(admin_client: Client) -> None:
    pause, resume = (reverse(f"snakepit:pool-{action}_queue", args=["digits"]) for action in ("pause", "resume"))
    page = admin_client.get(reverse("snakepit:pool", args=["digits"])).content.decode()
    assert pause in page
    assert "Calls go on" in admin_client.get(pause).content.decode()
    assert admin_client.post(pause).status_code == 302
    page = admin_client.get(reverse("snakepit:pool", args=["digits"])).content.decode()
    assert "data-queue-paused" in page
    assert resume in page
    assert "data-queue-paused" in admin_client.get(reverse("snakepit:jobs")).content.decode()
    assert admin_client.post(resume).status_code == 302
    assert "data-queue-paused" not in admin_client.get(reverse("snakepit:jobs")).content.decode()

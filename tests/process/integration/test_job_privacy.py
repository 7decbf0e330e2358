"""The payload of a job on every surface: others see what kind of error it was, and none of its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from snakepit.pools.jobs import leases
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.models import Job, JobAttempt, PeriodicJob
from tests.process.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db
SECRET = "Ada Lovelace"


@pytest.fixture
def job() -> Job:
    job = Job.objects.create(pool="digits", command="classify", owner="grace", arguments={"name": SECRET})
    held = leases.claim(job.pk, "test", "node-1")
    assert held is not None
    assert leases.append_entries(held, [("log", {"message": SECRET})], (0.5, f"reads {SECRET}"))
    details = {"type": "KeyError", "traceback": f"line of {SECRET}"}
    error = {"code": "adapter_error", "message": f"KeyError: '{SECRET}'", "outcome": "failed", "details": details}
    assert leases.fail(held, Transition("failed"), error, {"outcome": "adapter_error"})
    JobAttempt.objects.filter(job=job).update(evidence={"output": [SECRET]})
    return Job.objects.get(pk=job.pk)


@pytest.mark.parametrize("scopes", [("view",), ("view", "run"), ("view", "operate")])
def test_a_key_without_the_permission_sees_the_kind_of_an_error(
    scopes: tuple[str, ...], job: Job, client: Client, broker: FakeClient, make_key: Callable[..., str]
) -> None:
    headers = {"Authorization": make_key(*scopes)}
    for path in (f"/api/jobs/{job.pk}", "/api/jobs", f"/api/jobs/{job.pk}/events"):
        assert SECRET not in client.get(path, headers=headers).content.decode()
    error = client.get(f"/api/jobs/{job.pk}", headers=headers).json()["error"]
    message = "The command raised an exception: KeyError."
    assert error == {"code": "adapter_error", "message": message, "outcome": "failed", "details": {}}
    assert client.get("/api/jobs", headers=headers).json()["jobs"][0]["error"] == error


def test_a_key_with_the_permission_sees_all_of_it(job: Job, client: Client, make_key: Callable[..., str]) -> None:
    headers = {"Authorization": make_key("view", "jobs")}
    shown = client.get(f"/api/jobs/{job.pk}", headers=headers).json()
    assert shown["error"]["details"]["traceback"] == f"line of {SECRET}"
    assert shown["progress_message"] == f"reads {SECRET}"
    assert client.get("/api/jobs", headers=headers).json()["jobs"][0]["error"]["message"] == f"KeyError: '{SECRET}'"


def test_a_page_shows_the_payload_to_those_with_the_permission(
    job: Job, client: Client, broker: FakeClient, django_user_model: Any
) -> None:
    user = django_user_model.objects.create_user("lena", password="x", is_staff=True)
    client.force_login(user)
    paths = (
        "/jobs/", "/jobs/?part=table", f"/jobs/{job.pk}/", f"/jobs/{job.pk}/?part=now", "/", "/events/",
        "/admin/snakepit_pools/job/", f"/admin/snakepit_pools/job/{job.pk}/change/",
    )  # fmt: skip
    for path in paths:
        page = client.get(path)
        assert page.status_code == 200, path
        assert SECRET not in page.content.decode(), path
        assert SECRET.replace(" ", "+") not in page.content.decode(), path
    assert "KeyError" in client.get(f"/jobs/{job.pk}/").content.decode()
    user.user_permissions.add(Permission.objects.get(codename="view_payload"))
    for path in (f"/jobs/{job.pk}/", f"/admin/snakepit_pools/job/{job.pk}/change/", "/jobs/"):
        assert SECRET in client.get(path).content.decode(), path


def test_the_admin_takes_no_filter_by_a_column_that_it_does_not_show(
    job: Job, client: Client, make_key: Callable[..., str], django_user_model: Any
) -> None:
    """Django filters by each column of a table, and the matches reveal what the page hides."""
    make_key()
    PeriodicJob.objects.create(
        name="nightly", pool="digits", command="classify", arguments={"name": SECRET}, interval=9
    )
    user = django_user_model.objects.create_user("lena", password="x", is_staff=True, is_superuser=False)
    user.user_permissions.add(Permission.objects.get(codename="view_apikey"))
    client.force_login(user)
    admin = "/admin/snakepit_pools"
    payload = ("arguments", "error", "progress_message", "result", "result_raw", "limit_key", "unique_key")
    hidden = [f"{admin}/job/?{name}__icontains=a" for name in payload]
    hidden += [f"{admin}/periodicjob/?arguments__icontains=Ada"]
    for path in (*hidden, f"{admin}/apikey/?digest__startswith=a"):
        assert client.get(path).status_code == 400, path
    page = client.get(f"{admin}/job/{job.pk}/change/").content.decode()
    assert ("field-limit_key" in page, "field-unique_key" in page, "field-command" in page) == (False, False, True)
    assert client.get(f"{admin}/job/?command__icontains=class&owner=grace").status_code == 200
    user.user_permissions.add(Permission.objects.get(codename="view_payload"))
    for path in hidden[:3]:
        assert client.get(path).status_code == 200, path

"""Pages and REST while the database cannot store anything or does not answer: the cause, and what still works."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client

from snakepit.pools.cli.main import run
from snakepit.pools.dashboard.alerts import find_alerts
from snakepit.pools.dashboard.stored_state import OVERDUE, read_stored_state
from snakepit.pools.diagnostics.facts import DiskFacts
from snakepit.pools.models import Job, Pool
from snakepit.pools.models.moments import utc_now
from tests import statuses
from tests.process.integration.fakes import FakeClient, unreachable

FULL = "The disk of the database is full"


@pytest.fixture
def full(db: None) -> Iterator[None]:
    """SQLite's own error: the file may not grow, as on a full disk."""
    if connection.vendor != "sqlite":
        pytest.skip("the page limit is one of SQLite")
    with connection.cursor() as cursor:
        # Pages that earlier tests of this process have freed could take a row.
        cursor.execute("PRAGMA page_size")
        size = cursor.fetchone()[0]
        cursor.execute("PRAGMA freelist_count")
        free = cursor.fetchone()[0]
        cursor.execute("CREATE TABLE filler (content)")
        cursor.execute("INSERT INTO filler VALUES (zeroblob(%s))", [free * size])
        cursor.execute("PRAGMA page_count")
        pages = cursor.fetchone()[0]
        cursor.execute("PRAGMA max_page_count")
        before = cursor.fetchone()[0]
        cursor.execute(f"PRAGMA max_page_count = {pages}")
    yield
    # Not through Django, which allows no query in a transaction that an error has broken.
    connection.connection.execute(f"PRAGMA max_page_count = {before}")


BIG = {"command": "classify", "arguments": {"text": "x" * 300_000}}


LINE = json.dumps(BIG["arguments"])
SUBMISSIONS = [
    ("/api/jobs", {"pool": "digits", **BIG}, "application/json"),
    ("/api/workflows", {"jobs": [{"pool": "digits", **BIG}]}, "application/json"),
    ("/api/jobs/batch?pool=digits&command=classify", f"{LINE}\n{LINE}", "application/x-ndjson"),
]


@pytest.mark.parametrize(("path", "body", "kind"), SUBMISSIONS)
def test_rest_names_a_full_disk_and_that_nothing_was_stored(
    client: Client, broker: FakeClient, make_key: Callable[..., str], full: None, path: str, body: Any, kind: str
) -> None:
    Pool.objects.create(name="digits", adapter="digits", size=1)
    reply = client.post(path, body, content_type=kind, headers={"Authorization": make_key()})
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], reply["Retry-After"]) == (503, "database_unavailable", "5")
    assert error["message"] == "The database cannot store anything: its disk is full."
    assert error["outcome"] == "not_started"


def test_the_shell_names_a_full_disk_and_that_nothing_was_stored(
    broker: FakeClient, full: None, capsys: pytest.CaptureFixture[str]
) -> None:
    Pool.objects.create(name="digits", adapter="digits", size=1)
    code = run(["submit", "digits", "classify", LINE, "--json"])
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["message"] == "The database cannot store anything: its disk is full."
    assert (code, error["code"], error["outcome"]) == (1, "database_unavailable", "not_started")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def fail(text: str) -> None:
        def raising(*given: Any, **more: Any) -> Any:
            raise OperationalError(text)

        monkeypatch.setattr("snakepit.pools.dashboard.page.rights_of", raising)

    return fail


@pytest.mark.django_db
def test_the_page_names_a_full_disk_what_works_and_what_to_do(
    client: Client, broker: FakeClient, failing: Callable[[str], None]
) -> None:
    failing("database or disk is full")
    page = client.get("/")
    text = page.content.decode()
    assert (page.status_code, page["Retry-After"]) == (503, "5")
    assert FULL in text
    assert "1 of 1 pool with ready workers, 2 ready workers, 3 waiting calls." in text
    assert "Free space" in text
    assert "digits" not in text, "the page is public"


@pytest.mark.django_db
def test_the_page_has_the_truth_about_a_broker_that_is_away_too(
    client: Client, broker: FakeClient, failing: Callable[[str], None]
) -> None:
    failing("connection refused")
    broker.error = unreachable()
    text = client.get("/").content.decode()
    assert FULL not in text
    assert "The database is unavailable" in text
    assert "The broker does not answer either" in text
    assert "/run/broker.sock" not in text, "the page is public"


@pytest.mark.django_db
def test_an_error_outside_of_every_view_gets_the_same_page(
    client: Client, broker: FakeClient, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    def raising(*given: Any, **more: Any) -> Any:
        raise OperationalError("database or disk is full")

    monkeypatch.setattr("django.contrib.sessions.middleware.SessionMiddleware.process_response", raising)
    client.raise_request_exception = False
    page = client.get("/")
    assert (page.status_code, FULL in page.content.decode()) == (503, True)


@pytest.mark.django_db
def test_jobs_that_no_celery_worker_takes_are_an_alert(django_user_model: Any) -> None:
    def alerts() -> list[Any]:
        return [
            one
            for one in find_alerts(statuses.status(), (), read_stored_state(), 1.0, 0.0)
            if one.key == "jobs:overdue"
        ]

    assert alerts() == []
    made = [Job.objects.create(pool="digits", command="classify", arguments={}) for _ in range(3)]
    assert alerts() == [], "they were queued just now"
    long_ago = utc_now() - timedelta(seconds=OVERDUE + 60)
    Job.objects.all().update(queued_at=long_ago)
    Job.objects.filter(pk=made[0].pk).update(run_after=utc_now() + timedelta(hours=1))  # scheduled for later
    (alert,) = alerts()
    assert (alert.title, alert.since) == ("2 jobs are due and wait", pytest.approx(long_ago.timestamp()))


@pytest.mark.django_db
def test_a_full_disk_is_an_alert_before_a_job_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    room = DiskFacts(path="/data", free=5 * 2**20, total=2**40, inodes_free=10**6, inodes_total=10**6)
    monkeypatch.setattr("snakepit.pools.diagnostics.machine._room", lambda path: room)
    found = find_alerts(statuses.status(), (), read_stored_state(), 1.0, 0.0)
    (alert,) = {one.key: one for one in found if one.key.startswith("disk:")}.values()
    assert (alert.level, alert.title) == ("error", "The disk of /data is full")
    assert alert.cause.startswith("5 MiB are free. Without room, jobs are refused")
    small = replace(room, total=40 * 2**20)
    monkeypatch.setattr("snakepit.pools.diagnostics.machine._room", lambda path: small)
    assert read_stored_state().full_disks == (), "a small file system is not full for its size"


def test_a_key_works_though_its_use_cannot_be_recorded(
    client: Client, broker: FakeClient, make_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key()

    def update(*given: Any, **more: Any) -> int:
        raise OperationalError("database or disk is full")

    monkeypatch.setattr("django.db.models.QuerySet.update", update)
    assert client.get("/api/status", headers={"Authorization": key}).status_code == 200

"""Periodic jobs: one run for each time with several schedulers, and every surface that shows or orders them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, connections, transaction
from django.test import Client
from django.urls import reverse

from snakepit.pools.broker.errors import CommandUnknown, QueueFull
from snakepit.pools.cli.main import run as shell
from snakepit.pools.dashboard.hub import Hub
from snakepit.pools.jobs import messages, periodic, reconciler
from snakepit.pools.models import Audit, Job, PeriodicJob, PeriodicRun, Pool
from snakepit.pools.models.moments import utc_now
from tests.process.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db
SCHEDULE = {"pool": "digits", "command": "classify", "arguments": {"pixels": [1]}, "cron": "0 * * * *"}
ADMIN = "admin:snakepit_pools_periodicjob_"


@pytest.fixture(autouse=True)
def ready(monkeypatch: pytest.MonkeyPatch, broker: FakeClient) -> None:
    monkeypatch.setattr("snakepit.pools.dashboard.page.hub", Hub())
    monkeypatch.setattr(messages, "send", lambda *_: True)
    Pool.objects.create(name="digits", adapter="digits", size=1)


def make(name: str = "nightly", **changes: Any) -> PeriodicJob:
    return PeriodicJob.objects.create(name=name, **{**SCHEDULE, **changes})


def due(row: PeriodicJob, ago: timedelta = timedelta(seconds=1)) -> datetime:
    """Make a time of the schedule pass; returns it."""
    moment = utc_now() - ago
    PeriodicJob.objects.filter(pk=row.pk).update(next_run=moment)
    return moment


# The schedule.


def test_a_due_schedule_submits_its_job_once_and_goes_on() -> None:
    row = make(owner="ada", tags="night, slow", priority=4, expires_after=60)
    assert row.next_run is not None
    assert row.next_run > utc_now()
    assert reconciler.reconcile()["periodic"] == 0
    nominal = due(row)
    assert reconciler.reconcile()["periodic"] == 1
    assert reconciler.reconcile()["periodic"] == 0
    job = Job.objects.get()
    assert (job.pool, job.command, job.arguments, job.owner, job.priority) == (
        "digits", "classify", {"pixels": [1]}, "ada", 4,
    )  # fmt: skip
    assert job.tag_list == ["periodic:nightly", "night", "slow"]
    row.refresh_from_db()
    assert (row.last_job, row.problem) == (job.pk, "")
    assert row.next_run == row.recurrence.after(utc_now())
    run = row.runs.get()
    assert (run.job, run.nominal) == (job.pk, row.last_run)
    assert job.expires == row.last_run + timedelta(seconds=60)
    assert abs(row.last_run - nominal) < timedelta(seconds=1) or row.last_run > nominal


def test_schedulers_that_read_the_same_row_make_one_run() -> None:
    row = make()
    due(row)
    first, second = PeriodicJob.objects.get(), PeriodicJob.objects.get()
    assert [periodic._attempt(one, utc_now()) for one in (first, second)] == [True, False]
    assert (Job.objects.count(), PeriodicRun.objects.count()) == (1, 1)


def test_a_time_that_has_run_does_not_run_again_after_the_clock_was_set_back() -> None:
    row = make()
    nominal = due(row)
    assert periodic.run_due() == 1
    PeriodicJob.objects.filter(pk=row.pk).update(next_run=nominal)  # by a scheduler of another clock, say
    assert periodic.run_due() == 0
    assert Job.objects.count() == 1
    with pytest.raises(IntegrityError), transaction.atomic():
        PeriodicRun.objects.create(periodic=row, nominal=row.runs.get().nominal)


@pytest.mark.django_db(transaction=True)
def test_schedulers_at_the_same_time_make_one_run_for_each_time() -> None:
    rows = [make(f"every-{number}") for number in range(4)]
    for row in rows:
        due(row)
    counts: list[int] = []

    def schedule() -> None:
        try:
            counts.append(periodic.run_due())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=schedule) for _ in range(3 if connection.vendor == "postgresql" else 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(counts) == 4
    assert sorted(job.tag_list[0] for job in Job.objects.all()) == [f"periodic:every-{number}" for number in range(4)]


@pytest.mark.parametrize(("misfire", "runs"), [("skip", 0), ("once", 1)])
def test_missed_runs_follow_the_policy(misfire: str, runs: int) -> None:
    row = make(misfire=misfire, cron="0 0 1 1 *")
    due(row, timedelta(days=40))
    assert periodic.run_due() == runs
    row.refresh_from_db()
    assert row.next_run is not None
    assert row.next_run > utc_now()
    assert row.runs.count() == runs


@pytest.mark.parametrize("offset", [timedelta(days=3), timedelta(days=-3)], ids=["ahead", "behind"])
def test_a_scheduler_with_another_clock_runs_what_is_due_by_the_databases(
    offset: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = make(misfire="skip", cron="", interval=86_400)
    nominal = due(row, timedelta(0)).replace(microsecond=0)
    PeriodicJob.objects.filter(pk=row.pk).update(next_run=nominal)
    monkeypatch.setattr(periodic, "utc_now", lambda: datetime.now(UTC) + offset)
    monkeypatch.setattr(periodic, "late_after", lambda: timedelta(hours=1))
    assert periodic.run_due() == 1
    row.refresh_from_db()
    assert row.last_run is not None
    assert row.next_run is not None
    assert nominal <= row.last_run < row.next_run <= utc_now() + timedelta(days=1)


def test_a_pause_submits_nothing_and_leaves_no_missed_runs() -> None:
    row = make(misfire="once")
    row.enabled = False
    row.save()
    assert PeriodicJob.objects.get().next_runs() == []
    due(row)
    assert periodic.run_due() == 0
    row.enabled = True
    row.save()
    assert periodic.run_due() == 0
    row.refresh_from_db()
    assert row.next_run is not None
    assert row.next_run > utc_now()


def test_a_change_of_anything_but_the_schedule_keeps_an_overdue_run() -> None:
    row = make(misfire="once")
    nominal = due(row)
    row.priority = 9
    row.save()
    assert PeriodicJob.objects.get().next_run == nominal
    row.cron = "30 * * * *"
    row.save()
    stored = PeriodicJob.objects.get()
    assert stored.next_run is not None
    assert (stored.next_run.minute, stored.next_run > utc_now()) == (30, True)


def test_a_schedule_whose_job_is_refused_says_why_and_goes_on() -> None:
    row, good = make(), make("good")
    due(row)
    due(good)
    Job.objects.all().delete()
    PeriodicJob.objects.filter(pk=row.pk).update(pool="gone")
    assert periodic.run_due() == 1
    row.refresh_from_db()
    assert "gone" in row.problem
    assert row.next_run is not None
    assert row.next_run > utc_now()
    assert (row.runs.get().job, "gone" in row.runs.get().problem) == (None, True)


def test_a_full_queue_delays_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    row = make()
    due(row)
    with monkeypatch.context() as full:
        full.setattr(periodic, "enqueue", _refuse)
        assert periodic.run_due() == 0
    row.refresh_from_db()
    assert (row.problem, row.runs.count()) == ("full", 0)
    assert periodic.run_due() == 1
    row.refresh_from_db()
    assert row.problem == ""


def _refuse(_: Any) -> Any:
    raise QueueFull("full")


def test_old_runs_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(periodic, "KEPT_RUNS", 2)
    row = make()
    for minutes in (50, 40, 30, 20):
        PeriodicRun.objects.create(periodic=row, nominal=utc_now() - timedelta(days=1, minutes=minutes))
    due(row)
    assert periodic.run_due() == 1
    assert row.runs.count() == 2


@pytest.mark.parametrize(
    "wrong",
    [{"cron": "nonsense"}, {"time_zone": "Mars/Base"}, {"interval": 5}, {"cron": ""}, {"name": "Night Run"},
     {"time_zone": "localtime"}, {"time_zone": "right/UTC"}, {"cron": 5}, {"cron": "", "interval": "x"},
     {"misfire": "all"}, {"retry": "x"}, {"arguments": 5}, {"arguments": {"n": float("nan")}},
     {"expires_after": -1}, {"pool": "\0"}, {"owner": "x" * 151}],
    ids=str,
)  # fmt: skip
def test_a_wrong_schedule_is_not_stored(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make(**wrong)


# The surfaces.


def test_rest_adds_shows_changes_and_deletes(client: Client, make_key: Callable[..., str]) -> None:
    headers = {"Authorization": make_key("run", "view", "operate", "configure")}

    def ask(method: str, path: str, body: Any = None) -> Any:
        return client.generic(
            method, f"/api/periodic{path}", json.dumps(body or {}), "application/json", headers=headers
        )

    body = {**SCHEDULE, "name": "nightly", "time_zone": "Europe/Berlin", "cron": "30 2 * * *", "tags": ["night"]}
    made = ask("POST", "", body)
    assert made.status_code == 201, made.content
    shown = made.json()
    assert (shown["owner"], shown["arguments"], shown["tags"]) == ("ada", {"pixels": [1]}, ["night"])
    assert len(shown["next_runs"]) == 5
    assert shown["next_runs"][0] == shown["next_run"]
    assert ask("GET", "/nightly").json() == shown
    assert [one["name"] for one in client.get("/api/periodic", headers=headers).json()["periodic"]] == ["nightly"]
    again = ask("POST", "", body)
    assert (again.status_code, "name" in again.json()["error"]["details"]["fields"]) == (400, True)
    changed = ask("PATCH", "/nightly", {"cron": "0 3 * * *", "priority": 2})
    assert (changed.status_code, changed.json()["cron"], changed.json()["priority"]) == (200, "0 3 * * *", 2)
    assert changed.json()["arguments"] == {"pixels": [1]}
    for field, value in {"cron": "61 * * * *", "time_zone": "Mars/Base", "pool": "none", "interval": 5}.items():
        refused = ask("PATCH", "/nightly", {field: value})
        assert refused.status_code in (400, 404), field
        assert field in refused.content.decode() or field == "interval"
    for field, value, why in (
        ("timeout", -1, "timeout: -1.0 is outside"), ("interval", -5, "interval: -5 is outside"),
        ("priority", True, "priority: Value error, must be a number"), ("tags", ["Ü"], "tags: 'Ü' must have"),
    ):  # fmt: skip
        refused = ask("PATCH", "/nightly", {field: value, **({"cron": ""} if field == "interval" else {})})
        assert (refused.status_code, refused.json()["error"]["message"][: len(why)]) == (400, why)
    job = ask("POST", "/nightly/run").json()
    assert job["tags"] == ["periodic:nightly", "night"]
    assert ask("POST", "/nightly/pause", {"reason": "release"}).json()["enabled"] is False
    assert ask("GET", "/nightly").json()["next_runs"] == []
    assert ask("POST", "/nightly/resume").json()["enabled"] is True
    assert ask("DELETE", "/nightly").status_code == 204
    assert ask("GET", "/nightly").json()["error"]["code"] == "periodic_unknown"
    actions = list(Audit.objects.filter(outcome="done").order_by("pk").values_list("action", flat=True))
    assert actions == [
        "add_periodic", "change_periodic", "run_periodic", "pause_periodic", "resume_periodic", "delete_periodic",
    ]  # fmt: skip


def test_rest_refuses_callers_without_the_scope(client: Client, make_key: Callable[..., str]) -> None:
    make(owner="grace")
    headers = {"Authorization": make_key("view")}
    shown = client.get("/api/periodic/nightly", headers=headers).json()
    assert (shown["payload_hidden"], shown["arguments"]) == (True, None)
    for method, path in (("POST", "/nightly/run"), ("PATCH", "/nightly"), ("DELETE", "/nightly")):
        refused = client.generic(method, f"/api/periodic{path}", "{}", "application/json", headers=headers)
        assert refused.status_code == 403, path
    elsewhere = {"Authorization": make_key("view", "operate", pools=["primes"])}
    assert client.get("/api/periodic/nightly", headers=elsewhere).status_code == 404
    assert client.get("/api/periodic", headers=elsewhere).json() == {"periodic": []}


def test_the_shell_lists_runs_and_pauses(capsys: pytest.CaptureFixture[str]) -> None:
    make(time_zone="Europe/Berlin")
    assert shell(["periodic", "list", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["name"], len(shown["next_runs"])) == ("nightly", 5)
    assert shell(["periodic", "list"]) == 0
    assert "0 * * * * Europe/Berlin" in capsys.readouterr().out
    assert shell(["periodic", "run", "nightly"]) == 0
    assert capsys.readouterr().out.strip() == str(Job.objects.get().pk)
    assert shell(["periodic", "pause", "nightly"]) == 0
    assert capsys.readouterr().out == "nightly: paused\n"
    assert not PeriodicJob.objects.get().enabled
    assert shell(["periodic", "resume", "nightly"]) == 0
    assert PeriodicJob.objects.get().enabled
    assert shell(["periodic", "run", "nothing"]) == 1


def form(**changes: Any) -> dict[str, Any]:
    return {
        "name": "nightly",
        "pool": "digits",
        "command": "classify",
        "arguments": '{"pixels": [1]}',
        "cron": "30 2 * * *",
        "time_zone": "Europe/Berlin",
        "misfire": "skip",
        "enabled": "on",
        "retry": "lost",
        "priority": "0",
        "owner": "ada",
        **changes,
    }


def test_the_admin_adds_a_checked_schedule_and_shows_its_runs(admin_client: Client) -> None:
    assert admin_client.post(reverse(f"{ADMIN}add"), form()).status_code == 302
    row = PeriodicJob.objects.get()
    page = admin_client.get(reverse(f"{ADMIN}change", args=[row.pk])).content.decode()
    assert page.count("02:30:00 CE") == 5
    assert "nightly" in admin_client.get(reverse(f"{ADMIN}changelist")).content.decode()
    action = {"action": "run_now", "_selected_action": [row.pk]}
    admin_client.post(reverse(f"{ADMIN}changelist"), action)
    assert Job.objects.get().tag_list == ["periodic:nightly"]
    assert str(Job.objects.get().pk) in admin_client.get(reverse(f"{ADMIN}change", args=[row.pk])).content.decode()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("cron", "* * *", "five fields"),
        ("time_zone", "Mars/Base", "no time zone"),
        ("interval", "5", "not both"),
        ("pool", "none", "No pool is named"),
        ("name", "Nightly Job", "lower-case"),
        ("tags", "Ä", "lower-case letters"),
        ("retention", "9999999999", "retention"),
        ("arguments", '{"pixels": "x"}', "must be array"),
    ],
)
def test_the_admin_names_the_field_that_is_wrong(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch, field: str, value: str, words: str
) -> None:
    answer = admin_client.post(reverse(f"{ADMIN}add"), form(**{field: value}))
    assert answer.status_code == 200
    assert words in json.dumps(answer.context["adminform"].form.errors), answer.context["adminform"].form.errors
    assert not PeriodicJob.objects.exists()


def test_an_unknown_command_is_named(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise CommandUnknown("Pool digits has no command 'clasify'. Did you mean classify?")

    monkeypatch.setattr(periodic.JobTarget, "check", refuse)
    answer = admin_client.post(reverse(f"{ADMIN}add"), form(command="clasify"))
    assert "Did you mean classify" in str(answer.context["adminform"].form.errors["command"])


def test_the_dashboard_shows_schedules_and_takes_orders(admin_client: Client, client: Client) -> None:
    make(time_zone="Europe/Berlin")
    page = admin_client.get(reverse("snakepit:periodic")).content.decode()
    assert 'data-periodic="nightly"' in page
    assert "data-until" in page
    run = reverse("snakepit:periodic-act", args=["nightly", "run"])
    assert "Run nightly now?" in admin_client.get(run).content.decode()
    assert admin_client.post(run).status_code == 302
    assert Job.objects.count() == 1
    assert admin_client.post(reverse("snakepit:periodic-act", args=["nightly", "pause"])).status_code == 302
    assert not PeriodicJob.objects.get().enabled
    assert 'class="state paused"' in admin_client.get(reverse("snakepit:periodic")).content.decode()
    assert admin_client.post(reverse("snakepit:periodic-act", args=["nightly", "resume"])).status_code == 302
    assert admin_client.get(reverse("snakepit:periodic-act", args=["gone", "run"])).status_code == 404


def test_a_viewer_may_look_and_no_more(client: Client, django_user_model: Any) -> None:
    make()
    client.force_login(django_user_model.objects.create_user("lena", is_staff=True))
    assert client.get(reverse("snakepit:periodic")).status_code == 200
    assert client.post(reverse("snakepit:periodic-act", args=["nightly", "run"])).status_code == 403
    assert Audit.objects.get().action == "run_periodic"
    assert client.get(reverse(f"{ADMIN}changelist")).status_code == 200
    assert client.get(reverse(f"{ADMIN}add")).status_code == 403
    assert "pixels" not in client.get(reverse(f"{ADMIN}change", args=[PeriodicJob.objects.get().pk])).content.decode()


def test_times_are_utc_in_the_row() -> None:
    row = make(cron="30 2 * * *", time_zone="Asia/Tokyo")
    assert row.next_run is not None
    assert row.next_run.astimezone(UTC).strftime("%H:%M") == "17:30"

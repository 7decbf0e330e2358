"""Arguments and errors in lists, errors in groups, search in arguments, and the export of jobs."""

from __future__ import annotations

import csv
import io
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client

from snakepit.pools import jobs
from snakepit.pools.cli.main import run
from snakepit.pools.dashboard.hub import Hub
from snakepit.pools.jobs import error_groups, export, leases, listing, messages
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.models import Job, Pool
from tests.process.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def ready(monkeypatch: pytest.MonkeyPatch, broker: FakeClient) -> None:
    monkeypatch.setattr("snakepit.pools.dashboard.page.hub", Hub())
    monkeypatch.setattr(messages, "send", lambda *_: True)
    Pool.objects.create(name="digits", adapter="digits", size=1)


def submitted(owner: str = "", command: str = "classify", **arguments: Any) -> Job:
    return jobs.submit("digits", command, arguments, owner=owner)


def failed(message: str, kind: str = "KeyError", **options: Any) -> Job:
    job = submitted(**options)
    held = leases.claim(job.pk, "test", "node-1")
    assert held is not None
    error = {"code": "adapter_error", "message": message, "outcome": "failed", "details": {"type": kind}}
    leases.fail(held, Transition("failed"), error, {"error": error})
    return job.refresh()


@pytest.fixture
def some(broker: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "commands", lambda _: (), raising=False)
    for number in (17, 18):
        failed(f"KeyError: 'order {number} of Ada'\nTraceback ...", owner="ada", name="Ada", n=number)
    failed("ValueError: empty", "ValueError", owner="bob", name="Bob")
    failed("KeyError: 'order 3 of Bob'", owner="bob", command="count", name="Bob")
    submitted(owner="bob", name="Bob")


def get(client: Client, path: str, key: str) -> Any:
    return client.get(f"/api/jobs{path}", headers={"Authorization": key})


def body_of(response: Any) -> str:
    return b"".join(response.streaming_content).decode()


def test_errors_are_grouped_by_command_kind_and_first_line(some: None, client: Client, make_key: Any) -> None:
    found = get(client, "/errors", make_key("view", "jobs")).json()
    rows = [(one["command"], one["kind"], one["message"], one["count"]) for one in found["errors"]]
    assert rows[0] == ("classify", "KeyError", "KeyError: 'order # of Ada'", 2)
    assert set(rows[1:]) == {
        ("classify", "ValueError", "ValueError: empty", 1),
        ("count", "KeyError", "KeyError: 'order # of Bob'", 1),
    }
    newest = Job.objects.filter(owner="ada").order_by("-pk").first()
    assert newest is not None
    assert found["errors"][0]["newest"] == str(newest.pk)
    assert get(client, "/errors?command=count", make_key("view", "jobs")).json()["errors"][0]["count"] == 1


def test_a_group_of_jobs_whose_payload_is_hidden_has_only_the_kind(some: None, client: Client, make_key: Any) -> None:
    found = get(client, "/errors", make_key("view")).json()["errors"]
    assert "Ada" not in json.dumps(found)
    assert "order" not in json.dumps(found)
    assert {(one["command"], one["kind"] or one["message"], one["count"]) for one in found} == {
        ("classify", "The command raised an exception: KeyError.", 2),
        ("classify", "The command raised an exception: ValueError.", 1),
        ("count", "The command raised an exception: KeyError.", 1),
    }


def test_lists_show_the_start_of_arguments_that_the_viewer_may_see(some: None, client: Client, make_key: Any) -> None:
    shown = {one["id"]: one for one in get(client, "", make_key("view", "jobs")).json()["jobs"]}
    assert all(json.loads(one["arguments_short"])["name"] in ("Ada", "Bob") for one in shown.values())
    mine = get(client, "", make_key("view", "run")).json()["jobs"]
    assert {one["owner"] for one in mine if one["arguments_short"]} == {"ada"}
    submitted(text="x" * 70_000)
    newest = listing.page(Job.objects.all(), 1)[0][0]
    assert newest.arguments_short == f"{newest.size} bytes"
    submitted(text="y" * 500)
    assert len(listing.page(Job.objects.all(), 1)[0][0].arguments_short) == listing.SHORT


def test_an_export_has_all_that_match_and_hides_what_is_hidden(
    some: None, client: Client, make_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE", 2)
    lines = [json.loads(line) for line in body_of(get(client, "/export", make_key("view", "jobs"))).splitlines()]
    assert [one["id"] for one in lines] == [str(job.pk) for job in Job.objects.order_by("-pk")]
    assert lines[0]["arguments"] == {"name": "Bob"}
    hidden = [json.loads(line) for line in body_of(get(client, "/export", make_key("view"))).splitlines()]
    assert "order" not in json.dumps(hidden)
    assert {one["arguments"] is None for one in hidden} == {True}
    table = get(client, "/export?format=csv&state=failed", make_key("view", "jobs"))
    assert table["Content-Disposition"] == 'attachment; filename="jobs.csv"'
    rows = list(csv.DictReader(io.StringIO(body_of(table))))
    assert len(rows) == 4
    assert json.loads(rows[0]["arguments"]) == {"name": "Bob"}
    none = body_of(get(client, "/export?format=csv&owner=unknown", make_key("view", "jobs")))
    assert none.splitlines() == [",".join(rows[0])]  # the names of the columns, without a row
    assert body_of(get(client, "/export?owner=unknown", make_key("view"))) == ""
    assert get(client, "/export?format=xml", make_key("view")).status_code == 400


def test_a_shell_shows_groups_and_exports(some: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "errors", "--json"]) == 0
    assert [one["count"] for one in json.loads(capsys.readouterr().out)] == [2, 1, 1]
    assert run(["jobs", "errors"]) == 0
    assert "order # of Ada" in capsys.readouterr().out
    assert run(["jobs", "export", "--format", "csv", "--owner", "ada"]) == 0
    assert len(list(csv.DictReader(io.StringIO(capsys.readouterr().out)))) == 2
    assert run(["jobs", "export", "--format", "xml"]) == 2
    assert run(["jobs", "--owner", "ada", "--json"]) == 0
    assert json.loads(json.loads(capsys.readouterr().out)[0]["arguments_short"]) == {"name": "Ada", "n": 18}


def test_the_dashboard_shows_groups_and_arguments_to_those_who_may_see_them(
    some: None, client: Client, django_user_model: Any
) -> None:
    user = django_user_model.objects.create_user("grace", is_staff=True)
    client.force_login(user)
    for path in ("/jobs/", "/jobs/errors/"):
        text = client.get(path).content.decode()
        assert "Ada" not in text
        assert "order" not in text.replace("border", "")
    user.user_permissions.set(Permission.objects.filter(codename="view_payload"))
    assert "data-arguments" in client.get("/jobs/").content.decode()
    page = client.get("/jobs/errors/").content.decode()
    assert page.count("data-error-group") == 3
    assert "KeyError: &#x27;order # of Ada&#x27;" in page
    assert client.get("/jobs/errors/?span=9y").status_code == 200


def test_arguments_are_searched_on_postgresql_among_those_that_the_caller_may_see(
    some: None, client: Client, make_key: Any
) -> None:
    for wrong in (r'{"n": "\u0000"}', '{"n": NaN}', '{"n": 1e999}', r'{"n": "\ud800"}', '{"n": 1, "n": 2}', "\0"):
        refused = get(client, f"?{urlencode({'arguments': wrong})}", make_key("view", "jobs"))
        assert (refused.status_code, refused.json()["error"]["message"][:10]) == (400, "arguments:"), wrong
    asked = "?arguments=" + "%7B%22name%22%3A%22Bob%22%7D"  # {"name":"Bob"}
    found = get(client, asked, make_key("view", "jobs"))
    if connection.vendor != "postgresql":
        assert found.status_code == 400
        assert "PostgreSQL" in found.json()["error"]["message"]
        return
    assert len(found.json()["jobs"]) == 3
    assert len(get(client, "?arguments=ada", make_key("view", "jobs")).json()["jobs"]) == 2
    assert get(client, asked, make_key("view", "run")).json()["jobs"] == []
    assert get(client, asked, make_key("view")).status_code == 403


def test_numbers_and_ids_do_not_separate_groups() -> None:
    lines = ["row 5 of 0x7f2a", "row 99 of 0x1"]
    assert {error_groups.first_line(line) for line in lines} == {"row # of #"}

"""Every page and route under the settings of ordinary Django projects: ATOMIC_REQUESTS, and USE_TZ = False."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, connections
from django.test import Client
from django.urls import URLResolver, reverse

from snakepit.pools import history, jobs
from snakepit.pools.jobs import leases, messages, reconciler
from snakepit.pools.models import ApiKey, Audit, Event, Job, Node, Pool, PoolPeriod, Worker
from snakepit.pools.models.moments import utc_now
from tests.process.integration.fakes import FakeClient, unreachable

pytestmark = pytest.mark.django_db(transaction=True)
MIDSUMMER = datetime(2026, 7, 1, 12, 30, tzinfo=UTC)
# Shown on the pages of others.
NO_PAGE = ("jobattempt", "jobentry", "poolperiod", "periodicrun", "jobworkflow", "jobedge", "jobstart")


@pytest.fixture(params=["atomic", "naive"])
def project(request: pytest.FixtureRequest, settings: Any, monkeypatch: pytest.MonkeyPatch, db: None) -> str:
    """One of the two settings, in a time zone that is not UTC."""
    monkeypatch.setattr(messages, "send", lambda *_: True)
    settings.TIME_ZONE = "America/Chicago"
    if request.param == "atomic":
        monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    else:
        settings.USE_TZ = False
    return str(request.param)


@pytest.fixture
def naive(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "send", lambda *_: True)
    settings.TIME_ZONE, settings.USE_TZ = "America/Chicago", False


@pytest.fixture
def rows(db: None, project: str) -> dict[str, str]:
    """One row of each kind, and what addresses it."""
    Pool.objects.create(name="digits", adapter="digits", size=1)
    node = Node.objects.create(name="node-1", seen_at=utc_now(), started_at=utc_now())
    Worker.objects.create(node=node, worker_id="digits-1", pool="digits", state="ready", seen_at=utc_now())
    Worker.objects.create(
        node=node, worker_id="digits-0", pool="digits", state="gone", seen_at=utc_now(), gone_at=utc_now()
    )
    Event.objects.create(at=utc_now(), kind="worker.ready", pool="digits", worker="digits-1")
    Audit.objects.create(actor="user root", action="recycle", pool="digits")
    PoolPeriod.objects.create(node="node-1", pool="digits", seconds=60, at=utc_now() - timedelta(minutes=20), ok=3)
    ended = jobs.submit("digits", "classify", {"pixels": [1]})
    held = leases.claim(ended.pk, "test", "node-1")
    assert held is not None
    assert leases.succeed(held, 7, {})
    waits = jobs.submit(
        "digits", "classify", {}, run_after=utc_now() + timedelta(hours=1), deadline=MIDSUMMER.replace(year=2040)
    )
    return {"ended": str(ended.pk), "waits": str(waits.pk)}


def failed(client: Client, paths: list[str]) -> list[str]:
    found = []
    for path in paths:
        answer = client.get(path)
        if answer.status_code != 200:
            found.append(f"{path}: {answer.status_code} {answer.content[:300]!r}")
    return found


def test_every_page_of_the_dashboard_opens(rows: dict[str, str], broker: FakeClient, admin_client: Client) -> None:
    pages = ["/", "/pools/", "/pools/digits/", "/workers/", "/workers/?state=gone", "/workers/digits-1/", "/nodes/",
             "/events/", "/events/?before=9999999999", "/jobs/", "/jobs/?span=1d", "/audit/", "/playground/",
             f"/playground/?job={rows['ended']}", "/diagnostics/", "/pools/digits/recycle/", "/pools/digits/scale/",
             "/workers/digits-1/kill/", "/nodes/node-1/drain/", "/live/palette/", "/live/series/?span=3600",
             "/live/fragments/?topic=pools"]  # fmt: skip
    pages += [f"/jobs/{ident}/" for ident in rows.values()]
    assert failed(admin_client, pages) == []


def test_the_asynchronous_pages_answer(rows: dict[str, str], broker: FakeClient, admin_client: Client) -> None:
    events = admin_client.get(f"/jobs/{rows['ended']}/events/")
    assert b"event: end" in b"".join(events)
    body = json.dumps({"pool": "digits", "command": "classify", "arguments": {}})
    ran = admin_client.post("/playground/run/", body, content_type="application/json")
    assert ran.status_code == 200
    broker.error = unreachable()  # the doctor would look at the process of a real broker
    assert failed(admin_client, ["/diagnostics/report/"]) == []


def test_every_page_of_the_admin_opens(rows: dict[str, str], broker: FakeClient, admin_client: Client) -> None:
    pages, admin_user = [], ApiKey.objects.model._meta.get_field("owner").related_model.objects.get()
    ApiKey.create(name="test", owner=admin_user, expires_at=utc_now() + timedelta(days=1))
    for model in apps.get_app_config("snakepit_pools").get_models():
        name = f"admin:snakepit_pools_{model._meta.model_name}"
        if model._meta.model_name in NO_PAGE:
            continue
        pages += [reverse(f"{name}_changelist")]
        pages += [reverse(f"{name}_change", args=(row.pk,)) for row in model.objects.all()]
    year = utc_now().year
    pages += [f"/admin/snakepit_pools/{name}/?{column}__year={year}"
              for name, column in (("job", "created_at"), ("event", "at"), ("audit", "at"))]  # fmt: skip
    assert failed(admin_client, pages) == []


def test_every_route_of_the_api_answers(
    rows: dict[str, str], broker: FakeClient, make_key: Callable[..., str], client: Client
) -> None:
    headers = {"Authorization": make_key("run", "view", "operate", "jobs", "configure")}
    client.defaults["HTTP_AUTHORIZATION"] = headers["Authorization"]
    routes = ["/api/", "/api/docs", "/api/openapi.json", "/api/live", "/api/ready", "/api/pools", "/api/pools/digits",
              "/api/pools/digits/commands", "/api/pools/digits/plan", "/api/workers", "/api/workers/digits-1",
              "/api/events", "/api/audit", "/api/nodes", "/api/status", "/api/jobs",
              "/api/jobs?since=2026-01-01T00:00:00Z", f"/api/jobs/{rows['ended']}", f"/api/jobs/{rows['waits']}",
              f"/api/jobs/{rows['ended']}/events", "/api/nodes/node-1/drain"]  # fmt: skip
    assert failed(client, routes) == []
    tomorrow = (utc_now() + timedelta(days=1)).isoformat()
    posts = {"/api/pools/digits/commands/classify": {}, "/api/pools/digits/scale": {"size": 2},
             "/api/jobs": {"pool": "digits", "command": "classify", "run_after": tomorrow},
             f"/api/jobs/{rows['waits']}/cancel": {}, f"/api/jobs/{rows['ended']}/clone": {},
             "/api/nodes/node-1/drain": {"reason": "test"}}  # fmt: skip
    for path, body in posts.items():
        answer = client.post(path, json.dumps(body), content_type="application/json")
        assert answer.status_code in (200, 201), (path, answer.content)
    broker.error = unreachable()
    assert failed(client, ["/api/diagnostics"]) == []
    assert client.get("/api/ready").status_code == 503


def test_the_row_is_committed_before_the_broker_is_notified(
    rows: dict[str, str], broker: FakeClient, admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    within: list[bool] = []
    monkeypatch.setattr(broker, "apply", lambda **_: within.append(connection.in_atomic_block) or {"pools": 1})
    pool = Pool.objects.get()
    chosen = {"action": "pause", "_selected_action": [pool.pk]}
    assert admin_client.post("/admin/snakepit_pools/pool/", chosen).status_code == 302
    assert admin_client.post("/pools/digits/scale/", {"size": 3}).status_code == 302
    assert within == [False, False]


# USE_TZ = False alone.


def test_moments_are_instants_whatever_the_zone_of_the_project(naive: None, settings: Any) -> None:
    Pool.objects.create(name="digits", adapter="digits", size=1)
    job = jobs.submit("digits", "classify", {}, run_after=MIDSUMMER)
    row = Job.objects.get(pk=job.pk)
    assert row.run_after == MIDSUMMER
    assert row.sent_at is not None
    assert abs((row.created_at - row.sent_at).total_seconds()) < 60  # one is Python's clock, one is the database's
    assert abs(row.created_at.timestamp() - time.time()) < 60
    assert Job.objects.filter(run_after=MIDSUMMER, created_at__lt=utc_now(), run_after__lt="2026-07-01 07:31").exists()
    settings.USE_TZ = True
    assert Job.objects.get(pk=job.pk).run_after == MIDSUMMER


def test_a_lease_ends_by_the_clock_of_the_database(naive: None, settings: Any) -> None:
    Pool.objects.create(name="digits", adapter="digits", size=1)
    job = jobs.submit("digits", "classify", {}, deadline=utc_now() - timedelta(seconds=1))
    assert reconciler.reconcile()["overdue"] == 1
    assert Job.objects.get(pk=job.pk).state == "failed"
    held = leases.claim(jobs.submit("digits", "classify").pk, "test", "node-1")
    assert held is not None
    assert held.lease_until is not None
    assert 0 < (held.lease_until - utc_now()).total_seconds() <= 60
    assert reconciler.reconcile()["freed"] == 0


def test_a_form_shows_and_reads_local_time(
    naive: None, broker: FakeClient, admin_client: Client, admin_user: Any
) -> None:
    end = datetime(2040, 7, 1, 12, 30, tzinfo=UTC)
    key, _ = ApiKey.create(name="test", owner=admin_user, expires_at=end)
    page = f"/admin/snakepit_pools/apikey/{key.pk}/change/"
    assert 'value="07:30:00"' in admin_client.get(page).content.decode()
    form = {"name": "renamed", "scopes": ["run"], "expires_at_0": "2040-07-01", "expires_at_1": "07:30:00"}
    assert admin_client.post(page, form).status_code == 302
    key.refresh_from_db()
    assert (key.name, key.expires_at) == ("renamed", end)


def test_charts_and_pruning_read_the_rows(naive: None) -> None:
    minute = utc_now().replace(second=0, microsecond=0) - timedelta(minutes=40)
    PoolPeriod.objects.create(node="n", pool="digits", seconds=60, at=minute, ok=3)
    assert history.columns("digits", 3600, utc_now())["ok_rate"] == [0.05]
    assert history.roll_up(utc_now()) == 1
    assert history.prune(utc_now() + timedelta(days=30)) == 2
    Audit.objects.create(actor="user root", action="recycle")
    assert Audit.prune(3600) == 0
    assert Audit.prune(-60) == 1


def test_a_job_is_submitted_through_the_api(naive: None, broker: FakeClient, make_key: Callable[..., str]) -> None:
    Pool.objects.create(name="digits", adapter="digits", size=1)
    body = json.dumps({"pool": "digits", "command": "classify", "run_after": "2026-07-01T12:30:00Z"})
    headers = {"Authorization": make_key()}
    answer = Client().post("/api/jobs", body, content_type="application/json", headers=headers)
    assert answer.status_code == 201, answer.content
    assert answer.json()["run_after"] == "2026-07-01T12:30:00Z"


# ATOMIC_REQUESTS, for the views that no list above has.


def views(patterns: Iterable[Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for pattern in patterns:
        where = f"{at}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            yield from views(pattern.url_patterns, where)
        else:
            yield where, pattern.callback


@pytest.mark.parametrize("conf", ["snakepit.pools.urls", "snakepit.pools.dashboard.urls"])
def test_no_view_runs_in_the_transaction_of_atomic_requests(conf: str) -> None:
    found = dict(views(import_module(conf).urlpatterns))
    assert len(found) > 20
    aliases = set(connections)
    assert [at for at, view in found.items() if getattr(view, "_non_atomic_requests", set()) != aliases] == []


def test_a_key_is_enough_where_the_project_requires_a_login(
    settings: Any, broker: FakeClient, make_key: Callable[..., str]
) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    Pool.objects.create(name="digits", adapter="digits", size=1)
    key = make_key()
    for path in ("/api/", "/api/pools", "/api/status", "/api/live", "/api/openapi.json"):
        assert Client().get(path, headers={"Authorization": key}).status_code == 200, path
    assert Client().get("/api/pools").status_code == 401, "no login page for a program"
    assert Client().get("/pools/")["Location"].startswith("/admin/login/?next=")


@pytest.mark.parametrize("conf", ["snakepit.pools.urls", "snakepit.pools.dashboard.urls"])
def test_each_view_checks_rights_itself(conf: str) -> None:
    found = dict(views(import_module(conf).urlpatterns))
    assert [at for at, view in found.items() if getattr(view, "login_required", True)] == []

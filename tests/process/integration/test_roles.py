"""Roles: the words, the groups that a migration makes, and that who may only look changes nothing anywhere."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from snakepit.pools import jobs, permissions
from snakepit.pools.api.app import api
from snakepit.pools.jobs import messages
from snakepit.pools.models import Audit, Job, Pool, job_guard
from tests.process.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db


@pytest.fixture
def looker(django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("lena", password="x", is_staff=True)


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(messages, "send", lambda *_: True)
    Pool.objects.create(name="digits", adapter="digits", size=2)
    return jobs.submit("digits", "classify", {"n": 1}, owner="somebody")


def test_every_action_needs_a_permission_that_exists_and_has_a_word() -> None:
    known = set(Permission.objects.filter(content_type__app_label="snakepit_pools").values_list("codename", flat=True))
    assert known >= permissions.ALL
    assert {permissions.scope_of(one) for one in permissions.NEEDS.values()} == {"run", "operate", "jobs", "configure"}


def test_a_migrated_database_has_the_groups() -> None:
    for name, words in permissions.ROLES.items():
        held = set(Group.objects.get(name=name).permissions.values_list("codename", flat=True))
        assert held == permissions.of_scopes(words), name


def test_a_group_stays_as_people_left_it_and_a_missing_one_is_made_again() -> None:
    viewer = Group.objects.get(name="Snakepit viewer")
    viewer.permissions.clear()
    Group.objects.get(name="Snakepit caller").delete()
    permissions.make_groups()
    assert viewer.permissions.count() == 0
    assert Group.objects.get(name="Snakepit caller").permissions.filter(codename="run_command").exists()


@pytest.mark.django_db(transaction=True)
def test_what_follows_a_migration_writes_first_in_each_transaction() -> None:
    """On SQLite a transaction that has read is refused at once when another writes, as a waiting broker may."""
    Group.objects.filter(name__in=permissions.ROLES).delete()
    with connection.cursor() as cursor:
        table = f" on {job_guard.TABLE}" if connection.vendor == "postgresql" else ""
        cursor.execute(f"drop trigger {job_guard.NAME}{table}")
    with CaptureQueriesContext(connection) as told:
        permissions.make_groups()
        job_guard.install()
    statements = [query["sql"].lstrip().upper() for query in told]
    firsts = [after for before, after in itertools.pairwise(statements) if before.startswith("BEGIN")]
    # One transaction for each group and one for the trigger; before Django 6.1 bulk_create opened one more.
    assert len(firsts) > len(permissions.ROLES)
    assert [sql for sql in firsts if sql.startswith("SELECT")] == []
    test_a_migrated_database_has_the_groups()


def test_a_member_of_a_group_may_do_what_its_words_say(looker: Any) -> None:
    looker.groups.add(Group.objects.get(name="Snakepit operator"))
    granted = permissions.of(type(looker).objects.get(pk=looker.pk))
    assert {"recycle", "scale", "pause", "resume"} <= permissions.actions(granted)
    assert not {"call", "cancel_job", "change_pool"} & permissions.actions(granted)


def test_an_inactive_or_missing_user_may_do_nothing(looker: Any) -> None:
    from django.contrib.auth.models import AnonymousUser

    assert permissions.of(AnonymousUser()) == frozenset()
    looker.is_active, looker.is_superuser = False, True
    assert permissions.of(looker) == frozenset()


def api_changes() -> list[tuple[str, str]]:
    """Path and method of each route that changes something; a stream token changes nothing (test_stream_tokens.py)."""
    paths = api.get_openapi_schema(path_prefix="/api/")["paths"]
    found = [(path, method) for path, methods in paths.items() for method in methods if method != "get"]
    return sorted(set(found) - {("/api/stream-tokens", "post")})


@pytest.mark.parametrize(("path", "method"), api_changes())
def test_a_viewer_is_refused_by_every_rest_route_that_changes_something(
    client: Client, broker: FakeClient, looker: Any, job: Job, path: str, method: str
) -> None:
    names = {"pool": "digits", "command": "classify", "job_id": str(job.pk), "worker": "digits-1"}
    names |= {"advice": "queue:digits", "node": "here", "name": "nightly"}
    url = re.sub(r"{(\w+)}", lambda found: names[found[1]], path)
    body: dict[str, Any] = {"pool": "digits", "command": "classify"}
    body = {"jobs": [body]} if path == "/api/workflows" else body
    client.force_login(looker)
    response = getattr(client, method)(url, body, content_type="application/json")
    assert (response.status_code, response.json()["error"]["code"]) == (403, "permission_denied")
    assert (broker.calls, broker.orders, Job.objects.count()) == ([], [], 1)


def test_a_viewer_changes_nothing_in_the_admin(client: Client, broker: FakeClient, looker: Any, job: Job) -> None:
    client.force_login(looker)
    pool = Pool.objects.get()
    ids = {"pool": pool.pk, "job": job.pk}
    for model in ("pool", "job", "worker", "node", "event", "audit"):
        base = f"/admin/snakepit_pools/{model}/"
        assert client.get(base).status_code == 200, model
        for action in ("delete_selected", "pause", "resume", "recycle", "cancel", "retry"):
            data = {"action": action, "_selected_action": [str(ids.get(model, 1))], "confirmed": "yes", "post": "yes"}
            client.post(base, data)
        assert client.post(f"{base}add/", {}).status_code == 403, model
        if model in ids:
            assert client.post(f"{base}{ids[model]}/change/", {"size": 9}).status_code == 403
            assert client.post(f"{base}{ids[model]}/delete/", {"post": "yes"}).status_code == 403
    assert client.get("/admin/snakepit_pools/apikey/").status_code == 403
    pool.refresh_from_db()
    assert (pool.size, pool.paused, broker.orders) == (2, False, [])
    assert (Job.objects.get().state, Audit.objects.count()) == ("queued", 0)

"""Who may do what over REST, by key and by session."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.db.models import QuerySet
from django.middleware.csrf import _get_new_csrf_string  # the same as a page of the site would set
from django.test import Client
from django.utils import timezone

from snakepit.pools import permissions
from snakepit.pools.models import ApiKey, known_keys, owner_rights
from tests.process.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db
CALL = "/api/pools/digits/commands/classify"
RECYCLE = "/api/pools/digits/recycle"


@pytest.fixture
def user(django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("grace", password="x", is_staff=True)


def grant(user: Any, *names: str) -> None:
    user.user_permissions.add(*Permission.objects.filter(codename__in=names, content_type__app_label="snakepit_pools"))


@pytest.fixture
def kept_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked-up keys stay known, however slow the machine is."""
    monkeypatch.setattr(known_keys, "KEPT", 3600.0)


def code_of(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def send(client: Client, url: str = CALL, **headers: str) -> Any:
    return client.post(url, b"{}", content_type="application/json", headers=headers)


@pytest.mark.parametrize(
    "header",
    ["Bearer snk_000000000000_" + "a" * 43, "Bearer ", "Bearer nonsense", "Basic YTpi", "snk_x", "Bearer \u00e9", ""],
)
def test_a_wrong_key_is_refused(client: Client, broker: FakeClient, header: str) -> None:
    response = send(client, Authorization=header)
    assert code_of(response) == (401, "unauthenticated")
    assert response["WWW-Authenticate"].startswith("Bearer")
    assert broker.calls == []


@pytest.mark.parametrize(
    "url", ["/api/pools", "/api/pools/digits", "/api/workers", "/api/events", "/api/nodes", "/api/status"]
)
def test_without_a_key_nothing_is_seen(client: Client, broker: FakeClient, url: str) -> None:
    assert code_of(client.get(url)) == (401, "unauthenticated")


def test_a_wrong_key_does_not_fall_back_to_the_session(client: Client, broker: FakeClient, admin_user: Any) -> None:
    client.force_login(admin_user)
    assert code_of(send(client, Authorization="Bearer nonsense")) == (401, "unauthenticated")


def test_a_key_of_a_wrong_secret_is_refused(client: Client, broker: FakeClient, make_key: Callable[..., str]) -> None:
    key = make_key()
    other = key[:-1] + ("a" if key[-1] != "a" else "b")
    assert send(client, Authorization=key).status_code == 200
    assert code_of(send(client, Authorization=other)) == (401, "unauthenticated")


def test_an_expired_or_revoked_key_is_refused(client: Client, broker: FakeClient, make_key: Callable[..., str]) -> None:
    header = make_key(expires_at=timezone.now() + timedelta(hours=1))
    assert send(client, Authorization=header).status_code == 200
    ApiKey.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert code_of(send(client, Authorization=header)) == (401, "unauthenticated")
    ApiKey.objects.update(expires_at=None)
    ApiKey.objects.get().revoke()
    assert code_of(send(client, Authorization=header)) == (401, "unauthenticated")


def test_a_key_of_an_inactive_owner_is_refused(client: Client, broker: FakeClient, make_key: Any) -> None:
    header = make_key()
    owner = ApiKey.objects.get().owner
    owner.is_active = False
    owner.save()
    assert code_of(send(client, Authorization=header)) == (401, "unauthenticated")


def test_a_key_does_what_its_scopes_say(client: Client, broker: FakeClient, make_key: Callable[..., str]) -> None:
    asked = {"run": lambda key: send(client, Authorization=key),
             "operate": lambda key: send(client, RECYCLE, Authorization=key),
             "view": lambda key: client.get("/api/status", headers={"Authorization": key})}  # fmt: skip
    for own in asked:
        key = make_key(own)
        for scope, ask in asked.items():
            response = ask(key)
            if scope == own:
                assert response.status_code == 200
            else:
                assert code_of(response) == (403, "permission_denied")
                assert response.json()["error"]["details"]["scope"] == scope


@pytest.mark.usefixtures("kept_long")
def test_a_key_does_no_more_than_its_owner_may_do_now(
    client: Client, broker: FakeClient, django_user_model: Any, django_assert_num_queries: Any
) -> None:
    owner = django_user_model.objects.create_user("eve")
    group = Group.objects.create(name="callers")
    owner.groups.add(group)
    secret = ApiKey.create(name="test", owner=owner, scopes=tuple(permissions.SCOPES))[1]
    key = f"Bearer {secret}"

    def outcomes() -> list[int]:
        status = client.get("/api/status", headers={"Authorization": key})
        return [one.status_code for one in (send(client, Authorization=key), status)]

    assert outcomes() == [403, 403]
    grant(owner, "run_command")
    assert outcomes() == [200, 403]
    group.permissions.add(*Permission.objects.filter(codename__in=permissions.VIEW))
    assert outcomes() == [200, 200]
    with django_assert_num_queries(0):  # the key was looked up just now
        assert send(client, Authorization=key).status_code == 200
    owner.user_permissions.clear()
    assert outcomes() == [403, 200]
    group.delete()
    assert outcomes() == [403, 403]
    django_user_model.objects.filter(pk=owner.pk).update(is_staff=True)  # staff may view
    known_keys.forget()  # an update sends no signal: it takes effect after KEPT seconds
    assert outcomes() == [403, 200]


@pytest.mark.usefixtures("kept_long")
def test_rights_that_another_process_changed_are_read_again(
    client: Client, broker: FakeClient, django_user_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = django_user_model.objects.create_user("eve")
    grant(owner, "run_command")
    key = f"Bearer {ApiKey.create(name='test', owner=owner, scopes=('run',))[1]}"
    assert send(client, Authorization=key).status_code == 200
    django_user_model.user_permissions.through.objects.all().delete()  # sends no signal of many-to-many changes
    assert send(client, Authorization=key).status_code == 200  # for KEPT seconds
    monkeypatch.setattr(owner_rights, "KEPT", 0.0)
    monkeypatch.setattr(known_keys, "KEPT", 0.0)
    assert send(client, Authorization=key).status_code == 403


@pytest.mark.usefixtures("kept_long")
def test_a_key_that_another_process_revoked_is_refused_once_it_is_looked_up_again(
    client: Client, broker: FakeClient, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key()
    assert send(client, Authorization=key).status_code == 200
    QuerySet(ApiKey).update(revoked_at=timezone.now())  # as in another process: nothing is discarded here
    assert send(client, Authorization=key).status_code == 200
    monkeypatch.setattr(known_keys, "KEPT", 0.0)
    assert code_of(send(client, Authorization=key)) == (401, "unauthenticated")


@pytest.mark.usefixtures("kept_long")
def test_a_key_that_is_revoked_during_its_lookup_is_not_kept(
    client: Client, broker: FakeClient, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, find = make_key(), ApiKey.find

    def revoked_meanwhile(secret: str) -> ApiKey | None:
        found = find(secret)
        ApiKey.objects.get().revoke()
        return found

    monkeypatch.setattr(ApiKey, "find", revoked_meanwhile)
    assert send(client, Authorization=key).status_code == 200
    monkeypatch.setattr(ApiKey, "find", find)
    assert code_of(send(client, Authorization=key)) == (401, "unauthenticated")


@pytest.mark.usefixtures("kept_long")
def test_a_key_that_is_read_before_the_commit_of_its_revocation_is_not_kept(
    make_key: Callable[..., str], django_capture_on_commit_callbacks: Any
) -> None:
    make_key()
    read = ApiKey.objects.get()
    for revoke in (ApiKey.objects.get().revoke, lambda: ApiKey.objects.update(revoked_at=timezone.now())):
        with django_capture_on_commit_callbacks(execute=True):
            revoke()
            known_keys.keep("snk_x", read, time.monotonic())  # as another thread, which still sees the old row
        assert known_keys.find("snk_x") is None


def test_a_known_key_is_refused_at_the_moment_when_its_time_ends(
    client: Client, broker: FakeClient, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = timezone.now() + timedelta(hours=1)
    key = make_key(expires_at=ends)
    assert send(client, Authorization=key).status_code == 200
    monkeypatch.setattr("snakepit.pools.models.apikey.utc_now", lambda: ends)
    assert code_of(send(client, Authorization=key)) == (401, "unauthenticated")


def test_a_key_for_some_pools_reaches_no_other(
    client: Client, broker: FakeClient, make_key: Callable[..., str]
) -> None:
    key = make_key(pools=["other"])
    assert code_of(send(client, Authorization=key)) == (403, "permission_denied")
    status = client.get("/api/status", headers={"Authorization": key}).json()
    assert (status["pools"], status["workers"]) == ([], [])
    assert code_of(client.get("/api/events?pool=digits", headers={"Authorization": key})) == (403, "permission_denied")
    assert broker.calls == []


@pytest.mark.usefixtures("kept_long")
def test_the_use_of_a_key_is_noted_once_a_minute(
    client: Client, broker: FakeClient, make_key: Callable[..., str], django_assert_num_queries: Any
) -> None:
    key = make_key()
    send(client, Authorization=key)
    noted = ApiKey.objects.get().last_used_at
    assert noted is not None
    with django_assert_num_queries(0):  # a call of a known key costs no query
        send(client, Authorization=key)
    known_keys.forget()
    with django_assert_num_queries(1):  # others cost one: the key's
        send(client, Authorization=key)
    assert ApiKey.objects.get().last_used_at == noted
    ApiKey.objects.update(last_used_at=timezone.now() - timedelta(minutes=2))
    send(client, Authorization=key)
    assert ApiKey.objects.get().last_used_at > noted


def test_the_secret_is_not_stored(make_key: Callable[..., str]) -> None:
    secret = make_key().removeprefix("Bearer ")
    row = ApiKey.objects.values().get()
    assert secret.split("_", 2)[2] not in repr(row)
    assert len(row["digest"]) == 64


def test_staff_may_look_and_needs_permissions_to_act(client: Client, broker: FakeClient, user: Any) -> None:
    client.force_login(user)
    assert code_of(send(client)) == (403, "permission_denied")
    assert client.get("/api/pools").status_code == 200
    assert client.get("/api/events").status_code == 200
    assert code_of(send(client, RECYCLE)) == (403, "permission_denied")
    grant(user, "run_command")
    assert send(client).status_code == 200
    assert code_of(send(client, RECYCLE)) == (403, "permission_denied")
    grant(user, "operate_pool")
    assert send(client, RECYCLE).status_code == 200
    assert broker.orders == [("digits", "", "user grace", "")]


def test_a_user_without_staff_status_needs_permissions_to_view(client: Client, broker: FakeClient, user: Any) -> None:
    user.is_staff = False
    user.save()
    client.force_login(user)
    assert code_of(client.get("/api/pools")) == (403, "permission_denied")
    grant(user, "view_pool")
    assert client.get("/api/pools").status_code == 200
    assert code_of(client.get("/api/events")) == (403, "permission_denied")


def test_a_session_needs_the_csrf_token_for_what_changes(broker: FakeClient, user: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    grant(user, "run_command", "view_pool")
    client.force_login(user)
    assert client.get("/api/status").status_code == 200
    refused = send(client)
    assert code_of(refused) == (403, "permission_denied")
    assert "CSRF" in refused.json()["error"]["message"]
    assert broker.calls == []
    token = _get_new_csrf_string()
    client.cookies["csrftoken"] = token
    assert code_of(send(client, **{"X-CSRFToken": _get_new_csrf_string()})) == (403, "permission_denied")
    assert send(client, **{"X-CSRFToken": token}).status_code == 200


def test_a_key_needs_no_csrf_token(broker: FakeClient, make_key: Callable[..., str]) -> None:
    assert send(Client(enforce_csrf_checks=True), Authorization=make_key()).status_code == 200


def test_an_anonymous_post_without_a_token_is_unauthenticated(broker: FakeClient, db: None) -> None:
    assert code_of(send(Client(enforce_csrf_checks=True))) == (401, "unauthenticated")

"""A frozen database: one page or request of the API waits for it, the others have their answer at once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.db import OperationalError
from django.test import Client

from snakepit.pools.api import auth, health, identities
from snakepit.pools.dashboard import page
from snakepit.pools.models import known_keys
from snakepit.pools.web import away
from tests.process.integration.fakes import FakeClient


def end_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(away, "PAUSE", 0.0)
    monkeypatch.setattr(away.frozen, "_until", 0.0)


@pytest.mark.django_db
def test_only_one_page_of_the_admin_waits_for_a_frozen_database(
    admin_client: Client, broker: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, frozen = [], True

    def ask(request: Any) -> bool:
        asked.append(request.path)
        if frozen:
            raise OperationalError("connection timeout expired")
        return True

    monkeypatch.setattr(away, "SLOW", 0.0)
    monkeypatch.setattr(admin.site, "has_permission", ask)
    paths = ("/admin/", "/admin/snakepit_pools/pool/", "/admin/snakepit_pools/job/", "/")
    answers = [admin_client.get(path) for path in paths]
    assert [one.status_code for one in answers] == [503] * 4
    assert len(asked) == 1
    assert all("The database is unavailable" in one.content.decode() for one in answers)
    frozen = False
    end_pause(monkeypatch)
    assert [admin_client.get(path).status_code for path in paths] == [200] * 4


@pytest.mark.django_db
def test_only_one_page_waits_for_a_frozen_database(
    admin_client: Client, broker: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    rights_of, asked, frozen = page.rights_of, [], True

    def ask(user: Any) -> Any:
        asked.append(user)
        if frozen:
            raise OperationalError("connection timeout expired")
        return rights_of(user)

    monkeypatch.setattr(away, "SLOW", 0.0)
    monkeypatch.setattr(page, "rights_of", ask)
    answers = [admin_client.get(path) for path in ("/", "/pools/", "/jobs/")]
    assert [one.status_code for one in answers] == [503, 503, 503]
    assert len(asked) == 1
    assert all("The database is unavailable" in one.content.decode() for one in answers)
    frozen = False
    end_pause(monkeypatch)
    assert [admin_client.get(path).status_code for path in ("/", "/pools/")] == [200, 200]


@pytest.mark.django_db
def test_only_one_request_of_the_api_waits_for_a_frozen_database(
    client: Client,
    admin_client: Client,
    broker: FakeClient,
    make_key: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key, read_key, asked, frozen = make_key(), auth.read_key, [], True

    def ask(secret: str) -> Any:
        asked.append(secret)
        if frozen:
            raise OperationalError("connection timeout expired")
        return read_key(secret)

    monkeypatch.setattr(away, "SLOW", 0.0)
    monkeypatch.setattr(auth, "read_key", ask)
    monkeypatch.setattr(health, "_enabled_pools", lambda: ask("probe") and [])
    known_keys.forget()
    headers = {"Authorization": key}
    answers = [
        client.get("/api/pools", headers=headers),
        client.post("/api/pools/digits/commands/classify", {}, content_type="application/json", headers=headers),
        admin_client.get("/api/jobs"),  # with a session
    ]
    assert [(one.status_code, one["Retry-After"]) for one in answers] == [(503, "5")] * 3
    assert [one.json()["error"]["code"] for one in answers] == ["database_unavailable"] * 3
    assert answers[1].json()["error"]["outcome"] == "not_started"
    assert client.get("/api/ready").json()["problems"] == ["the database does not respond"]
    assert "The database is unavailable" in admin_client.get("/").content.decode()
    assert len(asked) == 1
    frozen = False
    end_pause(monkeypatch)
    assert client.get("/api/pools", headers=headers).status_code == 200
    assert len(asked) == 2


@pytest.mark.django_db
def test_a_wrong_key_shows_that_the_database_answers(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(away, "SLOW", 0.0)
    away.frozen.failed(OperationalError("connection timeout expired"), 1.0, 0.0)
    assert client.get("/api/pools", headers={"Authorization": f"Bearer snk_{12 * '0'}_{43 * 'x'}"}).status_code == 401
    assert not away.frozen.lasts


@pytest.mark.django_db
@pytest.mark.parametrize("given", [{}, {"Authorization": "Bearer snk_too_short"}])
def test_a_request_that_asks_for_no_key_says_nothing_about_the_database(client: Client, given: dict[str, str]) -> None:
    known = OperationalError("connection timeout expired")
    away.frozen._error = known
    assert client.get("/api/pools", headers=given).status_code == 401
    assert away.frozen.lasts
    assert away.frozen.error(0.0) is None  # it has not taken the turn of the one that looks again


def test_requests_are_not_told_apart_while_the_database_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(identities, "read_key", asked.append)
    monkeypatch.setattr(away, "SLOW", 0.0)
    away.frozen.failed(OperationalError("connection timeout expired"), 1.0, 0.0)
    bearer = f"Bearer snk_{12 * '0'}_{43 * 'x'}".encode()
    scope = {"headers": [(b"authorization", bearer)], "client": ("10.0.0.9", 1), "path": "/api/pools"}
    assert asyncio.run(identities.Identities().of(scope)).name == "address 10.0.0.9"
    assert not asked


class ServerError(Exception):
    sqlstate = "40P01"


@pytest.mark.parametrize("cause", [ServerError("deadlock detected"), sqlite3.OperationalError("database is locked")])
def test_an_error_that_the_database_sent_is_no_frozen_database(cause: Exception) -> None:
    if isinstance(cause, sqlite3.Error):
        cause.sqlite_errorcode = sqlite3.SQLITE_BUSY
    error = OperationalError(str(cause))
    error.__cause__ = cause
    frozen = away.FrozenDatabase()
    frozen.failed(error, took=6.0, now=10.0)
    assert frozen.error(now=10.1) is None

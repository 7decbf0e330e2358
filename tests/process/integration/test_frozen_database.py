"""Pages while the database is frozen: one page waits for it, the others have their answer at once."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.db import OperationalError
from django.test import Client

from snakepit.pools.dashboard import page
from snakepit.pools.web import away
from tests.process.integration.fakes import FakeClient


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

    monkeypatch.setattr(away, "frozen", away.FrozenDatabase())
    monkeypatch.setattr(away, "SLOW", 0.0)
    monkeypatch.setattr(admin.site, "has_permission", ask)
    paths = ("/admin/", "/admin/snakepit_pools/pool/", "/admin/snakepit_pools/job/", "/")
    answers = [admin_client.get(path) for path in paths]
    assert [one.status_code for one in answers] == [503] * 4
    assert len(asked) == 1
    assert all("The database is unavailable" in one.content.decode() for one in answers)
    frozen = False
    monkeypatch.setattr(away, "PAUSE", 0.0)
    monkeypatch.setattr(away.frozen, "_until", 0.0)  # the pause is over
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

    monkeypatch.setattr(away, "frozen", away.FrozenDatabase())
    monkeypatch.setattr(away, "SLOW", 0.0)
    monkeypatch.setattr(page, "rights_of", ask)
    answers = [admin_client.get(path) for path in ("/", "/pools/", "/jobs/")]
    assert [one.status_code for one in answers] == [503, 503, 503]
    assert len(asked) == 1
    assert all("The database is unavailable" in one.content.decode() for one in answers)
    frozen = False
    monkeypatch.setattr(away, "PAUSE", 0.0)
    monkeypatch.setattr(away.frozen, "_until", 0.0)  # the pause is over
    assert [admin_client.get(path).status_code for path in ("/", "/pools/")] == [200, 200]

"""The page Diagnostics: the doctor's findings, advice from the pools' numbers, and what Apply does."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from snakepit.pools.dashboard import diagnostics
from snakepit.pools.dashboard.hub import Hub
from snakepit.pools.diagnostics.finding import Finding, FindingStatus, report_of
from snakepit.pools.models import Audit, Pool
from tests.process.integration.fakes import FakeClient
from tests.statuses import growth

pytestmark = pytest.mark.django_db
GROWTH = growth(80.0, samples=20, mostly="classify")
FOUND = report_of(1e9, 0.5, [
    Finding("migrations", FindingStatus.OK, "all are applied"),
    Finding("beat", FindingStatus.PROBLEM, "no sweep <since> a minute", "start `celery beat`"),
], "gpu-1")  # fmt: skip

SECURE = report_of(1e9, 0.1, [Finding("API keys", FindingStatus.WARNING, "a key never expires")])


@pytest.fixture(autouse=True)
def leaking(monkeypatch: pytest.MonkeyPatch, broker: FakeClient) -> Pool:
    monkeypatch.setattr("snakepit.pools.dashboard.page.hub", Hub())
    monkeypatch.setattr(diagnostics, "latest", lambda *_: FOUND)
    monkeypatch.setattr(diagnostics, "latest_security", lambda *_: SECURE)
    broker.change_pool(growth=GROWTH)
    return Pool.objects.create(name="digits", adapter="digits", size=2)


def signed_in(users: Any, *names: str) -> Client:
    user = users.objects.create_user("ada", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client = Client()
    client.force_login(user)
    return client


def test_findings_are_shown_the_worst_first(django_user_model: Any) -> None:
    client = signed_in(django_user_model)
    assert "diagnostics/report/" in client.get("/diagnostics/").content.decode()
    page = client.get("/diagnostics/report/").content.decode()
    assert page.index('data-finding="beat"') < page.index('data-finding="migrations"')
    assert "no sweep &lt;since&gt; a minute" in page
    assert "start <code>celery beat</code>" in page
    assert "1 problem<" in page
    assert "host of node gpu-1" in page
    assert "from pool statistics of node node-1" in page
    assert Client().get("/diagnostics/report/").status_code == 403


def test_security_checks_are_shown_to_users_who_may_configure(django_user_model: Any) -> None:
    client = signed_in(django_user_model, "view_pool", "change_pool")
    page = client.get("/diagnostics/report/").content.decode()
    assert "a key never expires" in page.partition('data-checks="security"')[2]
    django_user_model.objects.get().user_permissions.remove(Permission.objects.get(codename="change_pool"))
    page = client.get("/diagnostics/report/").content.decode()
    assert 'data-checks="checks"' in page
    assert "security" not in page.lower()


def test_recommendations_are_visible_to_all_and_applied_with_the_scope_configure(django_user_model: Any) -> None:
    client = signed_in(django_user_model)
    page = client.get("/diagnostics/report/").content.decode()
    assert 'data-recommendation="leak:digits"' in page
    assert "data-apply" not in page
    assert client.get("/diagnostics/apply/leak:digits/").status_code == 403
    assert client.post("/diagnostics/apply/leak:digits/").status_code == 403


def test_a_recommendation_is_applied_after_a_preview(django_user_model: Any, broker: FakeClient) -> None:
    client = signed_in(django_user_model, "change_pool")
    assert "data-apply" in client.get("/diagnostics/report/").content.decode()
    page = client.get("/diagnostics/apply/leak:digits/").content.decode()
    assert "max_requests: None becomes 800" in page
    assert "No worker is replaced" in page
    assert Pool.objects.get().max_requests is None
    done = client.post("/diagnostics/apply/leak:digits/", {"reason": "it leaks"}, follow=True)
    assert "digits is changed, in force." in done.content.decode()
    assert Pool.objects.get().max_requests == 800
    row = Audit.objects.get()
    assert (row.action, row.pool, row.reason, row.data) == (
        "apply",
        "digits",
        "it leaks",
        {"max_requests": [None, 800]},
    )
    assert broker.orders[-1][1] == "apply max_requests None to 800"
    again = client.get("/diagnostics/apply/leak:digits/", follow=True).content.decode()
    assert "This is no longer advised" in again
    assert "No recommendations." in client.get("/diagnostics/report/").content.decode()


def test_a_pool_of_the_settings_is_not_changed_but_shown_the_line_to_write_there(django_user_model: Any) -> None:
    Pool.objects.update(source=Pool.Source.SETTINGS)
    client = signed_in(django_user_model, "change_pool")
    page = client.get("/diagnostics/report/").content.decode()
    assert "data-apply" not in page
    line = "SNAKEPIT[&quot;POOLS&quot;][&quot;digits&quot;][&quot;max_requests&quot;] = 800"
    assert line in page
    for answer in (client.get, client.post):
        assert line in answer("/diagnostics/apply/leak:digits/", follow=True).content.decode()
    assert Pool.objects.get().max_requests is None


def test_what_is_not_known_for_want_of_evidence_is_listed_and_no_silence(django_user_model: Any) -> None:
    page = signed_in(django_user_model).get("/diagnostics/report/").content.decode()
    assert "data-lacking" in page
    assert "needs 50 calls and 1 minute" in page

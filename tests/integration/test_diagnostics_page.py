"""The page Diagnostics: the doctor's findings, advice from the pools' numbers, and what Apply does."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from pools.broker.spec import PoolSpec
from pools.dashboard import diagnostics
from pools.dashboard.hub import Hub
from pools.diagnostics.finding import Finding, Status, report_of
from pools.diagnostics.recommendations import recommend
from pools.models import Audit, Pool
from tests.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db
GROWTH = {"verdict": "measured", "mb_per_1000_calls": 80.0, "samples": 20, "mostly": "classify"}
FOUND = report_of(1e9, 0.5, [
    Finding("migrations", Status.OK, "all are applied"),
    Finding("beat", Status.PROBLEM, "no sweep <since> a minute", "start `celery beat`"),
])  # fmt: skip


@pytest.fixture(autouse=True)
def leaking(monkeypatch: pytest.MonkeyPatch, broker: FakeClient) -> Pool:
    monkeypatch.setattr("pools.dashboard.page.hub", Hub())
    monkeypatch.setattr(diagnostics, "latest", lambda *_: FOUND)
    broker.pools[0]["growth"] = GROWTH
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
    assert Client().get("/diagnostics/report/").status_code == 403


def test_advice_is_for_all_and_its_button_for_those_who_configure(django_user_model: Any) -> None:
    client = signed_in(django_user_model)
    page = client.get("/diagnostics/report/").content.decode()
    assert 'data-recommendation="leak:digits"' in page
    assert "data-apply" not in page
    assert client.get("/diagnostics/apply/leak:digits/").status_code == 403
    assert client.post("/diagnostics/apply/leak:digits/").status_code == 403


def test_advice_is_applied_after_its_consequences_were_shown(django_user_model: Any, broker: FakeClient) -> None:
    client = signed_in(django_user_model, "change_pool")
    assert "data-apply" in client.get("/diagnostics/report/").content.decode()
    page = client.get("/diagnostics/apply/leak:digits/").content.decode()
    assert "max_requests: None becomes 3000" in page
    assert "No worker is replaced" in page
    assert Pool.objects.get().max_requests is None
    done = client.post("/diagnostics/apply/leak:digits/", {"reason": "it leaks"}, follow=True)
    assert "digits is changed, in force." in done.content.decode()
    assert Pool.objects.get().max_requests == 3000
    row = Audit.objects.get()
    assert (row.action, row.pool, row.reason, row.data) == (
        "apply",
        "digits",
        "it leaks",
        {"max_requests": [None, 3000]},
    )
    assert broker.orders[-1][1] == "apply max_requests None to 3000"
    again = client.get("/diagnostics/apply/leak:digits/", follow=True).content.decode()
    assert "This is not advised any more" in again
    assert "Nothing to advise." in client.get("/diagnostics/report/").content.decode()


def test_calls_that_wait_while_all_slots_are_busy_ask_for_workers() -> None:
    busy = {"name": "p", "slots": 4, "free": 0, "waiting": 9, "oldest_wait": 3.0, "memory_mb": 400.0, "ready": 4}
    specs = {"p": PoolSpec(name="p", adapter="a", size=4)}
    [one] = recommend([busy], specs)
    assert (one.values, one.cost) == ({"size": 6}, "about 200 MB more")
    for change in ({"free": 1}, {"oldest_wait": 2.0}, {"slots": 0}):
        assert recommend([{**busy, **change}], specs) == []
    assert recommend([busy], {"p": PoolSpec(name="p", adapter="a", size=4, paused=True)}) == []
    assert recommend([busy], {}) == []


def test_threads_that_run_one_at_a_time_ask_for_processes() -> None:
    slow = {"name": "p", "gil": "on", "gil_culprit": "orjson", "parallelism": 1.02, "slots": 8, "free": 8}
    specs = {"p": PoolSpec(name="p", adapter="a", profile="thread", threads=4, size=2)}
    [one] = recommend([slow], specs)
    assert one.values == {"profile": "process", "size": 8}
    assert "because of orjson" in one.evidence
    for change in ({"gil": "off"}, {"parallelism": 3.7}, {"parallelism": 0.0}):
        assert recommend([{**slow, **change}], specs) == []


def test_a_limit_that_is_tight_enough_is_left_alone() -> None:
    leaking = {"name": "p", "growth": GROWTH}
    assert recommend([leaking], {"p": PoolSpec(name="p", adapter="a", max_requests=5000)}) == []
    assert len(recommend([leaking], {"p": PoolSpec(name="p", adapter="a", max_requests=50_000)})) == 1
    young = {"name": "p", "growth": {**GROWTH, "samples": 19}}
    assert recommend([young], {"p": PoolSpec(name="p", adapter="a")}) == []
    little = {"name": "p", "growth": {**GROWTH, "mb_per_1000_calls": 0.2}}
    assert recommend([little], {"p": PoolSpec(name="p", adapter="a")}) == []

"""Every order leaves one row: who, what, on what, why, from where, and what became of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError
from django.test import Client
from django.utils import timezone

from snakepit.pools import jobs, tasks
from snakepit.pools.broker.errors import BadRequest, DefinitionInvalid, PoolUnknown
from snakepit.pools.cli import cluster, operate
from snakepit.pools.cli.main import run
from snakepit.pools.jobs import messages
from snakepit.pools.models import Audit, Pool
from snakepit.pools.operations import orders
from snakepit.pools.operations.orders import Order
from tests.process.integration.fakes import FakeClient, unreachable

pytestmark = pytest.mark.django_db
ADA = Order("user ada", "more load", "ada", "dashboard", "10.0.0.7")


@pytest.fixture
def pool(db: None, monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setattr(messages, "send", lambda *_: True)
    return Pool.objects.create(name="digits", adapter="digits", size=2)


def only() -> Audit:
    return Audit.objects.get()


def test_a_change_of_a_row_is_kept_with_what_was_before(pool: Pool, broker: FakeClient) -> None:
    orders.scale(broker, "digits", 4, ADA)
    row = only()
    assert (row.actor, row.action, row.pool, row.target, row.reason) == ("user ada", "scale", "digits", "", "more load")
    assert (row.surface, row.address, row.outcome, row.data) == ("dashboard", "10.0.0.7", "done", {"size": [2, 4]})


def test_a_change_without_a_broker_reports_that_it_is_not_in_force(pool: Pool, broker: FakeClient) -> None:
    broker.error = unreachable()
    orders.pause(broker, "digits", ADA)
    assert only().outcome == "done"
    assert "not in force yet" in only().message


def test_a_refused_order_is_kept_with_the_code_of_the_refusal(pool: Pool, broker: FakeClient) -> None:
    with pytest.raises(DefinitionInvalid):
        orders.scale(broker, "digits", 0, ADA)
    with pytest.raises(PoolUnknown):
        orders.pause(broker, "no\0pool", ADA)
    broker.error = unreachable()
    with pytest.raises(type(broker.error)):
        orders.recycle(broker, "digits", "digits-1", ADA)
    rows = Audit.objects.order_by("pk").values_list("action", "pool", "target", "outcome")
    assert list(rows) == [
        ("scale", "digits", "", "definition_invalid"),
        ("pause", "nopool", "", "pool_unknown"),
        ("recycle", "digits", "digits-1", "broker_unreachable"),
    ]


def test_fields_are_changed_together_and_only_those_of_a_definition(pool: Pool, broker: FakeClient) -> None:
    done = orders.change_pool(broker, "digits", {"max_requests": 5000, "size": 3}, ADA)
    assert (done.size, done.changed, done.in_force) == (3, True, True)
    assert only().data == {"max_requests": [None, 5000], "size": [2, 3]}
    assert broker.orders == [("digits", "apply max_requests None to 5000, size 2 to 3", "user ada", "more load")]
    for wrong in ({"name": "x"}, {"source": "settings"}, {"sise": 3}):
        with pytest.raises(DefinitionInvalid):
            orders.change_pool(broker, "digits", wrong, ADA)


def test_jobs_are_cancelled_and_retried_with_a_row_each(pool: Pool) -> None:
    job = jobs.submit("digits", "classify")
    orders.cancel_job(job.pk, ADA)
    orders.retry_job(job.pk, ADA)
    with pytest.raises(BadRequest):
        orders.retry_job(job.pk, ADA)
    rows = Audit.objects.order_by("pk").values_list("action", "target", "outcome", "message")
    assert [row[:3] for row in rows] == [
        ("cancel_job", str(job.pk), "done"), ("retry_job", str(job.pk), "done"),
        ("retry_job", str(job.pk), "bad_request"),
    ]  # fmt: skip
    assert rows[0][3] == "state: cancelled"


def test_an_order_is_carried_out_though_its_row_cannot_be_written(
    pool: Pool, broker: FakeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise DatabaseError("disk full")

    monkeypatch.setattr(Audit, "save", full)
    with caplog.at_level(logging.ERROR):
        assert orders.recycle(broker, "digits", "", ADA) == 2
    assert "audit row not written for user ada: recycle digits" in caplog.text
    assert "disk full" in caplog.text


def test_rest_names_the_key_and_the_address(
    pool: Pool, client: Client, broker: FakeClient, make_key: Callable[..., str]
) -> None:
    headers = {"Authorization": make_key("operate")}
    for path, body in (("pause", {"reason": "bad model"}), ("recycle", {"worker": "digits-1"})):
        url = f"/api/pools/digits/{path}"
        client.post(url, body, content_type="application/json", headers=headers, REMOTE_ADDR="10.1.2.3")
    recycled, paused = Audit.objects.all()
    assert (paused.action, paused.surface, paused.address, paused.reason) == ("pause", "rest", "10.1.2.3", "bad model")
    assert (recycled.action, recycled.target) == ("recycle", "digits-1")
    assert paused.actor.startswith("key test (snk_")


def test_the_shell_names_its_user(pool: Pool, broker: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (operate, cluster):
        monkeypatch.setattr(module, "connect", lambda *address: broker)
    job = jobs.submit("digits", "classify")
    assert run(["recycle", "digits", "--reason", "release"]) == 0
    assert run(["scale", "digits", "3"]) == 0
    assert run(["cancel", str(job.pk)]) == 0
    rows = Audit.objects.order_by("pk")
    assert [(row.action, row.surface) for row in rows] == [
        ("recycle", "shell"), ("scale", "shell"), ("cancel_job", "shell"),
    ]  # fmt: skip
    assert all(row.actor.startswith("shell user ") for row in rows)


def test_rest_lists_the_audit_for_the_scope_view(
    pool: Pool, client: Client, broker: FakeClient, make_key: Callable[..., str]
) -> None:
    orders.scale(broker, "digits", 4, ADA)
    orders.pause(broker, "digits", ADA)
    headers = {"Authorization": make_key("view")}
    found = client.get("/api/audit?limit=1", headers=headers).json()
    assert [row["action"] for row in found["audit"]] == ["pause"]
    older = client.get(f"/api/audit?cursor={found['next']}", headers=headers).json()
    assert [(row["action"], row["data"]) for row in older["audit"]] == [("scale", {"size": [2, 4]})]
    assert client.get("/api/audit?action=scale&actor=user%20ada", headers=headers).json()["audit"] == older["audit"]
    assert client.get("/api/audit", headers={"Authorization": make_key("run")}).status_code == 403
    other = make_key("view", pools=["primes"])
    assert client.get("/api/audit", headers={"Authorization": other}).json()["audit"] == []


def test_an_order_without_the_permission_is_kept_once_a_minute(
    pool: Pool, client: Client, broker: FakeClient, make_key: Callable[..., str]
) -> None:
    looks, elsewhere = make_key("view"), make_key("operate", pools=["primes"])
    job = jobs.submit("digits", "classify")

    def order(path: str, key: str) -> int:
        return client.post(
            f"/api/{path}", {}, content_type="application/json", headers={"Authorization": key}
        ).status_code

    for path in ("pools/digits/pause", "workers/digits-1/kill", f"jobs/{job.pk}/cancel", "nodes/here/drain"):
        assert [order(path, looks), order(path, looks)] == [403, 403]
    assert order("pools/digits/pause", elsewhere) == 403
    assert order("nodes/here/drain", elsewhere) == 403
    assert client.get("/api/pools", headers={"Authorization": make_key("run")}).status_code == 403  # no order
    assert order("pools/digits/pause", "Bearer snk_nobody_x") == 401
    rows = Audit.objects.order_by("pk").values_list("action", "pool", "target", "outcome", "surface")
    assert list(rows) == [
        (*one, "permission_denied", "rest")
        for one in [
            ("pause", "digits", ""), ("kill", "", "digits-1"), ("cancel_job", "digits", str(job.pk)),
            ("drain", "", "here"), ("pause", "digits", ""), ("drain", "", "here"),
        ]
    ]  # fmt: skip
    assert broker.orders == []
    Audit.objects.update(at=timezone.now() - timedelta(seconds=61))
    assert order("pools/digits/pause", looks) == 403
    assert Audit.objects.filter(action="pause").count() == 3


def test_an_order_on_the_dashboard_without_the_permission_is_kept_too(
    pool: Pool, client: Client, broker: FakeClient, django_user_model: Any
) -> None:
    client.force_login(django_user_model.objects.create_user("eve", is_staff=True))
    job = jobs.submit("digits", "classify")
    for path in ("pools/digits/scale", "workers/digits-1/stacks", "nodes/here/drain", f"jobs/{job.pk}/cancel", ""):
        assert client.post(f"/{path}{'/' if path else ''}", {"reason": "mine"}).status_code == 403, path
        assert client.get("/pools/digits/scale/").status_code == 403  # who only asks for the page has ordered nothing
    rows = Audit.objects.order_by("pk").values_list("actor", "action", "pool", "target", "outcome", "reason")
    assert list(rows) == [
        ("user eve", *one, "permission_denied", "mine")
        for one in [
            ("scale", "digits", ""), ("dump", "", "digits-1"), ("drain", "", "here"), ("cancel_job", "", str(job.pk)),
        ]
    ]  # fmt: skip
    assert "snakepit_pools.operate_pool" in Audit.objects.filter(action="scale").get().message


def test_a_refusal_is_returned_if_the_audit_cannot_be_read(
    pool: Pool, client: Client, broker: FakeClient, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    key = make_key("view")

    def away(*_: Any, **__: Any) -> None:
        raise DatabaseError("away")

    monkeypatch.setattr(Audit.objects, "filter", away)
    url = "/api/pools/digits/pause"
    assert client.post(url, {}, content_type="application/json", headers={"Authorization": key}).status_code == 403
    assert "lacks the permission for pause" in caplog.text


def test_old_rows_are_pruned(pool: Pool, broker: FakeClient, settings: Any) -> None:
    orders.pause(broker, "digits", ADA)
    orders.resume(broker, "digits", ADA)
    Audit.objects.filter(action="pause").update(at=timezone.now() - timedelta(days=366))
    assert tasks.prune() == 1
    assert only().action == "resume"

"""Recommendations over REST and from the shell's side: who may see and follow them, and when they are refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from snakepit.pools.broker.errors import NotAdvised
from snakepit.pools.diagnostics import applying
from snakepit.pools.diagnostics.history import history
from snakepit.pools.models import Audit, Event, Pool
from snakepit.pools.operations.orders import Order
from tests.process.integration.fakes import FakeClient
from tests.statuses import growth

pytestmark = pytest.mark.django_db
URL = "/api/diagnostics/recommendations"
GROWTH = growth(80.0, samples=20, mostly="classify")


@pytest.fixture(autouse=True)
def leaking(broker: FakeClient) -> Pool:
    broker.change_pool(growth=GROWTH)
    return Pool.objects.create(name="digits", adapter="digits", size=2)


def follow(client: Client, key: str, id: str = "leak:digits", **body: Any) -> Any:
    return client.post(f"{URL}/{id}/apply", body, content_type="application/json", headers={"Authorization": key})


def test_a_recommendation_has_its_numbers_and_its_exact_change(client: Client, make_key: Callable[..., str]) -> None:
    found = client.get(URL, headers={"Authorization": make_key("view")}).json()
    [one] = found["recommendations"]
    assert one["id"] == "leak:digits"
    assert one["changes"] == [{"field": "max_requests", "from": None, "to": 800}]
    assert one["sentence"] == "leaks 80.0 MiB per 1,000 calls in `classify`: max_requests none to 800"
    assert one["settings_line"] == ""
    queue = next(judged for judged in found["judgements"] if judged["rule"] == "queue")
    assert (queue["verdict"], "needs 50 calls" in queue["evidence"]) == ("not enough evidence", True)


def test_the_scope_configure_applies_it_once(client: Client, make_key: Callable[..., str], broker: FakeClient) -> None:
    key = make_key("configure", "view")
    done = follow(client, key, reason="it leaks")
    assert (done.status_code, done.json()["changed"]) == (200, True)
    assert Pool.objects.get().max_requests == 800
    assert broker.orders[-1][1] == "apply max_requests None to 800"
    again = follow(client, key)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "not_advised")
    rows = Audit.objects.order_by("pk").values_list("action", "outcome", "reason")
    assert list(rows) == [("apply", "done", "it leaks"), ("apply", "not_advised", "")]


def test_a_user_with_operate_only_is_refused(client: Client, make_key: Callable[..., str]) -> None:
    assert follow(client, make_key("operate", "view")).status_code == 403
    assert client.get(URL, headers={"Authorization": make_key("run")}).status_code == 403
    assert Pool.objects.get().max_requests is None


def test_a_key_of_other_pools_sees_and_follows_nothing(client: Client, make_key: Callable[..., str]) -> None:
    key = make_key("configure", "view", pools=["primes"])
    assert follow(client, key).status_code == 403
    found = client.get(URL, headers={"Authorization": key}).json()
    assert (found["recommendations"], found["judgements"]) == ([], [])


def test_a_pool_of_the_settings_is_refused_with_the_line_to_write(client: Client, make_key: Callable[..., str]) -> None:
    Pool.objects.update(source=Pool.Source.SETTINGS)
    answer = follow(client, make_key("configure", "view"))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "managed_by_settings")
    assert error["details"]["line"] == 'SNAKEPIT["POOLS"]["digits"]["max_requests"] = 800'
    assert Audit.objects.get().outcome == "managed_by_settings"
    assert Pool.objects.get().max_requests is None


@pytest.mark.parametrize("id", ["leak:nobody", "nonsense", "queue:digits"])
def test_an_id_that_nothing_is_advised_by_is_refused(id: str, broker: FakeClient) -> None:
    with pytest.raises(NotAdvised):
        applying.apply(broker, id, Order("ada"))


def test_a_row_that_is_not_valid_has_no_advice_and_does_no_harm(broker: FakeClient) -> None:
    Pool.objects.update(max_surge=0, max_unavailable=0)
    assert applying.judgements(broker.status()) == []


def test_history_is_of_the_last_day_by_reason() -> None:
    def event(kind: str, reason: str, message: str = "", days: int = 0, worker: str = "digits-1") -> None:
        at = timezone.now() - timedelta(days=days)
        Event.objects.create(at=at, kind=kind, pool="digits", worker=worker, reason=reason, message=message)

    event("worker.recycled", "ttl")
    event("worker.recycled", "ttl", worker="digits-2")
    event("worker.recycled", "max_requests")
    event("worker.recycled", "ttl", days=2)
    event("worker.died", "crash")
    event("worker.died", "boot_failure", "the model is missing")
    found = history("digits")
    assert dict(found.recycled) == {"max_requests": 1, "ttl": 2}
    assert (found.died, found.boot_failures, found.last_failure) == (1, 1, "the model is missing")
    assert history("digits", "digits-2").recycled == {"ttl": 1}
    assert history("primes").last_failure == ""

"""Adding, changing and deleting pools over REST."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from snakepit.pools.models import Audit, Pool
from tests.process.integration.fakes import FakeClient, unreachable

pytestmark = pytest.mark.django_db
CLOSED = {"network": "none", "paths": ["/srv/models"]}
NEW = {"name": "digits", "adapter": "digits", "size": 2}


@pytest.fixture
def send(client: Client, broker: FakeClient, make_key: Callable[..., str]) -> Callable[..., Any]:
    headers = {"Authorization": make_key("configure")}

    def request(method: str, url: str, body: Any = None) -> Any:
        text = json.dumps({} if body is None else body)
        return client.generic(method, url, text, content_type="application/json", headers=headers)

    return request


def test_a_pool_is_added_changed_and_deleted(send: Any, broker: FakeClient) -> None:
    added = send("POST", "/api/pools", {**NEW, "reason": "launch"})
    assert (added.status_code, added["Location"]) == (201, "/api/pools/digits")
    assert added.json() == {"pool": "digits", "size": 2, "paused": False, "changed": True, "in_force": True, "note": ""}
    changed = send(
        "PATCH", "/api/pools/digits", {"size": 3, "ttl": 60, "args": {"a": 1}, "sandbox": CLOSED, "reason": "more"}
    )
    assert (changed.status_code, changed.json()["size"], changed.json()["changed"]) == (200, 3, True)
    row = Pool.objects.get()
    assert (row.ttl, row.args, row.sandbox, str(row.updated_by)) == (60, {"a": 1}, CLOSED, "ada")
    assert send("DELETE", "/api/pools/digits", {"reason": "over"}).status_code == 200
    assert not Pool.objects.exists()
    assert [(one.action, one.outcome, one.reason, one.surface) for one in Audit.objects.order_by("pk")] == [
        ("add_pool", "done", "launch", "rest"), ("change_pool", "done", "more", "rest"),
        ("delete_pool", "done", "over", "rest"),
    ]  # fmt: skip
    assert [one[1].split(" ")[0] for one in broker.orders] == ["add", "change_pool", "delete"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**NEW, "adapter": "os.system"}, "adapter"), ({**NEW, "size": "2"}, "size"), ({**NEW, "size": 10**9}, "size"),
        ({**NEW, "sise": 2}, "sise"), ({**NEW, "env": {"LD_PRELOAD": "/tmp/x.so"}}, "env"),
        ({**NEW, "python": "/tmp/python"}, "python"), ({"adapter": "digits"}, "name"), ({**NEW, "name": 5}, "name"),
        ({**NEW, "source": "settings"}, "source"), ({**NEW, "sandbox": {"paths": ["etc"]}}, "sandbox"),
    ],
)  # fmt: skip
def test_a_wrong_definition_is_refused_by_field(send: Any, broker: FakeClient, body: Any, field: str) -> None:
    answer = send("POST", "/api/pools", body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], list(error["details"]["fields"])) == (422, "definition_invalid", [field])
    assert not Pool.objects.exists()
    assert broker.orders == []


def test_a_change_is_checked_in_the_same_way(send: Any, broker: FakeClient) -> None:
    Pool.objects.create(**NEW)
    for body in ({"name": "other"}, {"adapter": "nope"}, {"python": "/tmp/python"}, {"threads": 0}, {"id": 7}):
        answer = send("PATCH", "/api/pools/digits", body)
        assert (answer.status_code, list(answer.json()["error"]["details"]["fields"])) == (422, list(body))
    assert send("PATCH", "/api/pools/other", {"size": 1}).status_code == 404
    assert send("POST", "/api/pools", NEW).status_code == 422  # the name is taken
    assert Pool.objects.get().revision == 1


def test_pools_of_the_settings_are_left_alone(send: Any) -> None:
    Pool.objects.create(**NEW, source="settings")
    for method in ("PATCH", "DELETE"):
        answer = send(method, "/api/pools/digits", {"size": 3} if method == "PATCH" else {})
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "managed_by_settings")
    assert Pool.objects.get().size == 2


def test_without_a_broker_the_row_is_saved_and_says_so(send: Any, broker: FakeClient) -> None:
    broker.error = unreachable()
    added = send("POST", "/api/pools", NEW).json()
    assert (added["in_force"], added["note"].startswith("Saved, but not in force yet")) == (False, True)
    assert Pool.objects.count() == 1

"""Drain and resume of a node through REST, the admin, the dashboard and the shell: orders, actor and reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.cli import node_drain as commands
from snakepit.pools.cli import operate
from snakepit.pools.cli.main import run
from snakepit.pools.dashboard.hub import Hub
from snakepit.pools.models import Audit, Node
from tests.process.integration.fakes import POOL, WORKER, FakeClient, unreachable

pytestmark = pytest.mark.django_db
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def node() -> Node:
    return Node.objects.create(name="node-1", seen_at="2026-01-01T00:00Z")


@pytest.fixture
def rest(client: Client, make_key: Callable[..., str]) -> Callable[..., Any]:
    def ask(path: str, *scopes: str, post: Any = None, pools: Any = ()) -> Any:
        headers = {"Authorization": make_key(*scopes, pools=list(pools)) if pools else make_key(*scopes)}
        if post is None:
            return client.get(f"/api/nodes/{path}", headers=headers)
        return client.post(f"/api/nodes/{path}", json.dumps(post), content_type="application/json", headers=headers)

    return ask


# REST


def test_rest_drains_a_node_shows_its_calls_and_resumes_it(rest: Any, broker: FakeClient) -> None:
    before = rest("node-1/drain", "view").json()
    assert before.pop("snapshot")["stale"] is False
    held = [{"pool": "digits", "running": 1, "waiting": 3, "longest": 59.8}]
    assert before == {
        "node": "node-1", "draining": False, "since": 0.0, "actor": "", "reason": "", "running": 1, "waiting": 3,
        "empty": False, "pools": held,
    }  # fmt: skip
    assert broker.orders == []
    drained = rest("node-1/drain", "operate", post={"reason": "a new disk"}).json()
    assert (drained["draining"], drained["reason"], drained["pools"]) == (True, "a new disk", held)
    resumed = rest("node-1/resume", "operate", post={}).json()
    assert (resumed["draining"], resumed["since"]) == (False, 0.0)
    assert [(order[1], order[3]) for order in broker.orders] == [("drain", "a new disk"), ("resume", "")]
    rows = Audit.objects.order_by("pk").values_list("action", "target", "pool", "outcome", "surface")
    assert list(rows) == [("drain", "node-1", "", "done", "rest"), ("resume", "node-1", "", "done", "rest")]


def test_an_order_for_another_node_drains_nothing_and_is_in_the_audit(rest: Any, broker: FakeClient) -> None:
    refused = rest("node-2/drain", "operate", post={})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "node_unknown")
    assert refused.json()["error"]["details"] == {"node": "node-2", "here": "node-1"}
    assert rest("node-2/drain", "view").status_code == 404
    assert broker.orders == []
    assert Audit.objects.get().outcome == "node_unknown"


@pytest.mark.parametrize("action", ["drain", "resume"])
def test_an_order_needs_the_scope_operate_for_all_pools(rest: Any, broker: FakeClient, action: str) -> None:
    refused = rest(f"node-1/{action}", "view", "run", post={})
    assert (refused.status_code, refused.json()["error"]["details"]["scope"]) == (403, "operate")
    some = rest(f"node-1/{action}", "operate", post={}, pools=["digits"])
    assert "a node has all of them" in some.json()["error"]["message"]
    assert rest("node-1/drain", "view", pools=["digits"]).status_code == 403
    assert rest(f"node-1/{action}", "operate", post={"resaon": "x"}).status_code == 400
    assert broker.orders == []


def test_a_node_that_drains_is_not_ready_for_a_load_balancer(client: Client, broker: FakeClient) -> None:
    assert client.get("/api/ready").status_code == 200
    broker.drain("ada", "")
    answer = client.get("/api/ready")
    assert (answer.status_code, answer.json()["problems"]) == (503, ["the node is draining"])


# The admin


def act(client: Client, action: str, row: Node, **more: str) -> str:
    data = {"action": action, "_selected_action": [row.pk], **more}
    page = client.post(reverse("admin:snakepit_pools_node_changelist"), data, follow=True)
    return " ".join(page.content.decode().split())


def test_the_admin_asks_before_a_drain_with_what_the_node_holds(
    admin_client: Client, node: Node, broker: FakeClient
) -> None:
    page = act(admin_client, "drain", node)
    assert "Drain these nodes?" in page
    assert "<td>1</td><td>3</td><td>60 s</td>" in page
    assert broker.orders == []
    done = act(admin_client, "drain", node, confirmed="yes", reason="a new disk")
    assert "Refuses new calls; 1 running and 3 waiting calls finish." in done
    assert ": Takes calls again." in act(admin_client, "resume", node)
    assert broker.orders == [
        ("node-1", "drain", "user admin", "a new disk"), ("node-1", "resume", "user admin", "ordered in the admin"),
    ]  # fmt: skip


def test_the_admin_shows_why_a_node_cannot_be_drained(admin_client: Client, node: Node, broker: FakeClient) -> None:
    other = Node.objects.create(name="node-2", seen_at="2026-01-01T00:00Z")
    assert "order it on node-2" in act(admin_client, "drain", other)
    assert "order it on node-2" in act(admin_client, "drain", other, confirmed="yes")
    broker.error = unreachable()
    assert "No broker answers" in act(admin_client, "drain", node)
    assert "No broker answers" in act(admin_client, "resume", node)
    assert broker.orders == []


def test_staff_without_permission_cannot_drain_in_the_admin(
    client: Client, node: Node, broker: FakeClient, django_user_model: Any
) -> None:
    client.force_login(django_user_model.objects.create_user("grace", is_staff=True))
    act(client, "drain", node, confirmed="yes")
    act(client, "resume", node)
    assert broker.orders == []


# The dashboard


@pytest.fixture
def operator(client: Client, django_user_model: Any, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr("snakepit.pools.dashboard.page.hub", Hub())
    user = django_user_model.objects.create_user("olga")
    user.user_permissions.add(*Permission.objects.filter(codename__in=("view_pool", "operate_pool")))
    client.force_login(user)
    return client


def test_the_dashboard_previews_a_drain_and_shows_it_on_every_page(
    operator: Client, broker: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.pools.append(replace(POOL, name="idle", waiting=0))
    asked = operator.get("/nodes/node-1/drain/").content.decode()
    assert "1 running and 3 waiting calls are finished." in asked
    assert "digits: 1 running, which may take 60 s more, 3 waiting" in asked
    assert "idle:" not in asked
    assert 'data-order="drain"' in operator.get("/nodes/").content.decode()
    done = operator.post("/nodes/node-1/drain/", {"reason": "a new disk"}, follow=True).content.decode()
    assert "node-1 takes no new calls. 1 running and 3 waiting calls are finished." in done
    assert 'data-order="resume"' in done
    assert 'data-drain="draining"' in done
    page = operator.get("/pools/").content.decode()
    assert 'data-banner="drain"' in page
    assert "user olga" in page
    assert "a new disk" in page
    overview = operator.get("/").content.decode()
    assert "Node node-1 is drained" in overview
    assert "/nodes/node-1/resume/" in overview
    broker.pools, broker.workers = [replace(POOL, waiting=0)], [replace(WORKER, load=0, calls=())]
    monkeypatch.setattr("snakepit.pools.dashboard.page.hub", Hub())
    assert 'data-drain="drained"' in operator.get("/nodes/").content.decode()
    assert "node-1 takes calls." in operator.post("/nodes/node-1/resume/", {}, follow=True).content.decode()
    assert broker.orders == [("node-1", "drain", "user olga", "a new disk"), ("node-1", "resume", "user olga", "")]


def test_a_refused_drain_shows_its_reason_on_the_confirmation_page(operator: Client, broker: FakeClient) -> None:
    page = operator.post("/nodes/node-2/drain/", {"reason": "the wrong one"})
    assert page.status_code == 404
    assert "order it on node-2" in page.content.decode()
    assert 'value="the wrong one"' in page.content.decode()
    assert broker.orders == []


# The shell


@pytest.fixture
def shell(broker: FakeClient, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    monkeypatch.setattr(commands, "connect", lambda address: broker)
    monkeypatch.setattr(commands, "POLL", 0.01)
    monkeypatch.setattr(operate, "name_actor", lambda: "shell user ada")
    return broker


def test_the_shell_previews_a_drain_without_ordering_it(shell: FakeClient, capsys: Captured) -> None:
    assert run(["drain", "--node", "--preview"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "digits: 1 running and 3 waiting calls would be finished, the longest may take 60 s more",
        "node-1: new calls would be refused, whatever their pool; jobs would wait. Nothing was done.",
    ]
    assert run(["drain", "--node", "--preview", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["running"] == 1
    assert shell.orders == []


def test_the_shell_waits_until_the_node_is_empty(
    shell: FakeClient, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [2, 2, 1, 0]
    ordered = shell.drain

    def drain(actor: str = "", reason: str = "") -> None:
        def status(pool: str = "", timeout: float = 10.0) -> BrokerStatus:
            workers = (replace(WORKER, load=left.pop(0)),)
            return replace(FakeClient.status(shell), pools=(replace(POOL, waiting=0),), workers=workers)

        monkeypatch.setattr(shell, "status", status)
        ordered(actor, reason)

    monkeypatch.setattr(shell, "drain", drain)
    assert run(["drain", "--node", "--reason", "a new disk"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("node-1: empty, its workers stay warm.")
    assert err.splitlines() == ["node-1: 2 running, 0 waiting", "node-1: 1 running, 0 waiting"]
    assert shell.orders == [("node-1", "drain", "shell user ada", "a new disk")]
    assert Audit.objects.get().target == "node-1"


def test_the_shell_stops_after_its_timeout_and_reports_the_remaining_calls(shell: FakeClient, capsys: Captured) -> None:
    assert run(["drain", "--node", "--timeout", "0"]) == 1
    assert "node-1: after 0 s 1 calls run and 3 wait; it takes no new ones" in capsys.readouterr().err
    assert run(["resume", "--node"]) == 0
    assert capsys.readouterr().out == "node-1: takes calls\n"
    shell.error = unreachable()
    assert run(["drain", "--node"]) == 3


@pytest.mark.parametrize(
    "words", [["drain"], ["resume"], ["drain", "digits", "--node"], ["resume", "digits", "--node"],
              ["drain", "digits", "--preview"]],
)  # fmt: skip
def test_the_shell_wants_a_pool_or_the_node(shell: FakeClient, words: list[str], capsys: Captured) -> None:
    assert run(words) == 2
    assert "--node" in capsys.readouterr().err
    assert shell.orders == []

"""Status and orders for all nodes. The brokers are fakes; which nodes there are is fixed."""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import OperationalError
from django.test import Client

from snakepit.pools import conf
from snakepit.pools.adapters.network.client_certificate import EXPIRES, client_certificate
from snakepit.pools.broker.errors import DeadlineExceeded
from snakepit.pools.broker.status import BrokerStatus, PoolHistograms
from snakepit.pools.dashboard.hub import Hub
from snakepit.pools.dashboard.points import COLUMNS
from snakepit.pools.models import Audit, Event, Pool
from snakepit.pools.operations import all_nodes, pool_nodes
from snakepit.pools.operations.all_nodes import AskedNode
from snakepit.pools.operations.orders import Order
from tests.certificates import Authority
from tests.process.integration.fakes import FakeClient, unreachable
from tests.statuses import event, pool, worker

pytestmark = pytest.mark.django_db


class FarClient(FakeClient):
    """The broker of node-2, which has the pool digits as well, and a pool of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.pools = [pool("digits", size=3, ready=3, slots=3, free=3, finished=5), pool("gpu")]
        self.workers = [worker("digits-9")]

    def status(self, pool: str = "", timeout: float = 10.0) -> BrokerStatus:
        found = super().status(pool, timeout)
        return replace(found, node=replace(found.node, name="node-2"))

    async def ametrics(self, timeout: float) -> str:
        return "far 1\n"


@pytest.fixture
def far() -> FarClient:
    return FarClient()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch, broker: FakeClient, far: FarClient) -> list[AskedNode]:
    """Three nodes, one of which cannot be reached."""
    found: list[Any] = [
        AskedNode("node-1", broker, own=True),  # type: ignore[arg-type]
        AskedNode("node-2", far),  # type: ignore[arg-type]
        AskedNode("node-3", None, "it advertises no address"),
    ]
    monkeypatch.setattr(all_nodes, "known", lambda _: tuple(found))
    return found


@pytest.fixture
def get(client: Client, make_key: Any) -> Any:
    key = make_key()
    return lambda path, **more: client.get(path, headers={"authorization": more.get("key", key)})


def test_the_status_of_all_nodes_is_merged_and_has_those_that_do_not_answer(
    get: Any, nodes: Any, broker: FakeClient, far: FarClient
) -> None:
    broker.histograms = {"digits": PoolHistograms(ran={40: 9})}
    far.histograms = {"digits": PoolHistograms(ran={40: 9})}
    found = get("/api/status?node=all").json()
    assert [(one["name"], one["state"], one["own"]) for one in found["nodes"]] == [
        ("node-1", "live", True), ("node-2", "live", False), ("node-3", "not answering", False),
    ]  # fmt: skip
    assert found["nodes"][2]["reason"] == "it advertises no address"
    digits = next(one for one in found["pools"] if one["name"] == "digits")
    assert (digits["size"], digits["finished"], digits["waiting"]) == (5, 15, 3)
    assert [one["node"] for one in digits["nodes"]] == ["node-1", "node-2"]
    assert digits["latency"]["run_p95"] > 0
    assert {one["worker"]["id"]: one["node"] for one in found["workers"]} == {
        "digits-1": "node-1", "digits-9": "node-2",
    }  # fmt: skip
    far.error = DeadlineExceeded("The broker did not answer within 0.8 s.")
    found = get("/api/status?node=all").json()
    assert (found["nodes"][1]["state"], found["nodes"][1]["reason"]) == ("not answering", far.error.message)
    assert far.patience[-1] <= all_nodes.ANSWER


def test_a_key_sees_its_own_pools_of_all_nodes(get: Any, nodes: Any, make_key: Any) -> None:
    found = get("/api/status?node=all", key=make_key("view", pools=["gpu"])).json()
    assert [one["name"] for one in found["pools"]] == ["gpu"]
    assert found["workers"] == []
    assert [one["pools"] for one in found["nodes"]] == [0, 1, 0]


def test_pools_have_their_live_state_of_one_node_or_of_all(
    get: Any, nodes: list[Any], make_key: Any, settings: Any
) -> None:
    nodes[2] = replace(nodes[2], seen_at=time.time() - 60)
    Pool.objects.create(name="digits", adapter="digits")
    Pool.objects.create(name="gpu", adapter="digits")
    found = {one["name"]: one for one in get("/api/pools").json()["pools"]}
    assert (found["digits"]["live"]["ready"], found["digits"]["merged"], found["gpu"]["live"]) == (2, None, None)
    found = {one["name"]: one for one in get("/api/pools?node=node-2").json()["pools"]}
    assert (found["digits"]["live"]["ready"], found["gpu"]["live"]["ready"]) == (3, 1)
    answer = get("/api/pools?node=all").json()
    found = {one["name"]: one for one in answer["pools"]}
    assert (found["digits"]["merged"]["ready"], found["digits"]["live"]) == (5, None)
    assert [one["node"] for one in found["gpu"]["merged"]["nodes"]] == ["node-2"]
    assert [one["state"] for one in answer["all_nodes"]] == ["live", "live", "not answering"]
    assert answer["all_nodes"][2]["age"] >= 60
    one = get("/api/pools/digits?node=all").json()
    assert (one["merged"]["ready"], len(one["all_nodes"]), one["snapshot"]) == (5, 3, None)
    assert get("/api/pools/digits?node=node-2").json()["live"]["ready"] == 3
    assert get("/api/pools?node=node-3").json()["error"]["code"] == "broker_unreachable"
    assert get("/api/pools/digits?node=other").json()["error"]["code"] == "node_unknown"
    key = make_key("view", pools=["gpu"])
    assert [one["pools"] for one in get("/api/pools?node=all", key=key).json()["all_nodes"]] == [0, 1, 0]


def test_recorded_events_are_in_order_of_time_and_of_one_node(get: Any) -> None:
    for node, seconds in (("n1", 30), ("n1", 50), ("n2", 40)):  # n2 wrote its rows later
        Event.objects.create(at=datetime.fromtimestamp(seconds, UTC), node=node, kind="worker.started")
    found = get("/api/events").json()["events"]
    assert [(one["node"], one["at"][17:19]) for one in found] == [("n1", "50"), ("n2", "40"), ("n1", "30")]
    assert [one["node"] for one in get("/api/events?node=n2").json()["events"]] == ["n2"]
    assert get("/api/events?node=a%00b").status_code == 400


def test_the_status_and_the_metrics_of_one_node_by_its_name(get: Any, nodes: Any, far: FarClient) -> None:
    assert get("/api/status?node=node-2").json()["node"]["name"] == "node-2"
    assert get("/api/metrics?node=node-2").content.startswith(b"far 1\n")
    far.error = unreachable()
    for path, expected in {
        "/api/status?node=node-2": (503, "broker_unreachable"),
        "/api/status?node=node-3": (503, "broker_unreachable"),
        "/api/status?node=other": (404, "node_unknown"),
        "/api/metrics?node=node-3": (503, "broker_unreachable"),
        "/api/metrics?node=other": (404, "node_unknown"),
        "/api/status?node=a%00b": (400, "bad_request"),
    }.items():
        response = get(path)
        assert (response.status_code, response.json()["error"]["code"]) == expected, path


def test_the_metrics_of_this_host_have_the_end_of_its_clients_certificate(
    get: Any, nodes: Any, settings: Any, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("web", days=4)
    settings.SNAKEPIT = {**settings.SNAKEPIT, "BROKER_TLS": {"ca": str(authority.path), "cert": cert, "key": key}}
    conf.forget()
    (line,) = [one for one in get("/api/metrics").content.decode().splitlines() if one.startswith(EXPIRES)]
    assert float(line.split()[1]) == pytest.approx(time.time() + 4 * 86_400, abs=3600)
    assert EXPIRES not in get("/api/metrics?node=node-2").content.decode()
    found = client_certificate()
    assert found is not None
    assert found.path == cert
    Path(cert).write_text("half")
    assert EXPIRES not in get("/api/metrics").content.decode()
    broken = client_certificate()
    assert broken is not None
    assert broken.trouble == "it has no certificate"


def test_without_rows_there_is_the_node_of_this_host_alone(get: Any, broker: FakeClient) -> None:
    assert [one["name"] for one in get("/api/status?node=all").json()["nodes"]] == ["node-1"]
    assert get("/api/status?node=node-1").json()["node"]["name"] == "node-1"
    assert get("/api/status?node=node-2").json()["error"]["code"] == "node_unknown"
    broker.error = unreachable()
    (only,) = get("/api/status?node=all").json()["nodes"]
    assert (only["name"], only["state"]) == ("this host", "not answering")


def test_the_description_has_both_shapes_of_the_status(client: Client) -> None:
    schema = client.get("/api/openapi.json").json()
    answer = schema["paths"]["/api/status"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    shapes = {one["$ref"].rsplit("/", 1)[1] for one in answer["anyOf"]}
    assert shapes == {"StatusOut", "ClusterStatusOut"}
    assert {"nodes", "pools", "workers"} == set(schema["components"]["schemas"]["ClusterStatusOut"]["properties"])


# Orders.


@pytest.fixture
def post(client: Client, make_key: Any) -> Any:
    headers = {"authorization": make_key()}

    def send(path: str, **body: Any) -> Any:
        return client.post(path, json.dumps(body), content_type="application/json", headers=headers)

    return send


def test_a_recycle_reaches_each_node_that_hosts_the_pool_and_has_an_answer_of_each(
    post: Any, nodes: Any, broker: FakeClient, far: FarClient
) -> None:
    found = post("/api/pools/digits/recycle", reason="release").json()
    assert found == {
        "planned": 4,
        "nodes": [
            {"node": "node-1", "planned": 2, "error": ""},
            {"node": "node-2", "planned": 2, "error": ""},
            {"node": "node-3", "planned": 0, "error": "it advertises no address"},
        ],
    }
    assert [one[:2] for one in (*broker.orders, *far.orders)] == [("digits", ""), ("digits", "")]
    row = Audit.objects.get(action="recycle")
    assert (row.outcome, row.reason) == ("done", "release")
    assert row.message == ("node-1: 2 to be replaced; node-2: 2 to be replaced; node-3: it advertises no address")


def test_a_recycle_reaches_the_named_node_alone_and_a_worker_where_it_lives(
    post: Any, nodes: Any, broker: FakeClient, far: FarClient
) -> None:
    assert post("/api/pools/digits/recycle", node="node-2").json()["nodes"][0]["node"] == "node-2"
    assert post("/api/pools/digits/recycle", worker="digits-9").json()["nodes"][0]["node"] == "node-2"
    assert post("/api/pools/gpu/recycle").json()["planned"] == 2  # it lives on node-2 only
    assert ([one[:2] for one in broker.orders], [one[:2] for one in far.orders]) == (
        [], [("digits", ""), ("digits", "digits-9"), ("gpu", "")],
    )  # fmt: skip
    assert post("/api/pools/digits/recycle", node="other").json()["error"]["code"] == "node_unknown"
    assert post("/api/pools/digits/recycle", node="node-3").json()["error"]["code"] == "broker_unreachable"


def test_kill_and_dump_find_the_node_that_has_the_worker(
    post: Any, nodes: Any, broker: FakeClient, far: FarClient
) -> None:
    assert post("/api/workers/digits-9/kill").json() == {"worker": "digits-9", "pool": "digits"}
    assert post("/api/workers/digits-9/dump").json()["worker"] == "digits-9"
    assert ([one[:2] for one in far.orders], broker.orders) == ([("digits-9", "kill"), ("digits-9", "dump")], [])
    assert post("/api/workers/digits-1/kill").status_code == 200
    assert [one[:2] for one in broker.orders] == [("digits-1", "kill")]
    broker.error = unreachable()  # the broker of this host is away: the others get their orders
    assert post("/api/workers/digits-9/kill").status_code == 200
    assert post("/api/workers/digits-1/kill").json()["error"]["code"] == "broker_unreachable"
    broker.error = None
    assert post("/api/workers/digits-5/kill").json()["error"]["code"] == "worker_unknown"


@pytest.mark.django_db
def test_an_order_gives_each_node_the_seconds_of_its_caller(nodes: Any, broker: FakeClient, far: FarClient) -> None:
    order = Order("ada", "", surface="shell")
    pool_nodes.recycle(broker, "digits", "", order, patience=7.0)
    pool_nodes.kill(broker, "digits", "digits-9", order, patience=7.0)
    pool_nodes.dump(broker, "digits", "digits-9", order, patience=7.0)
    assert broker.patience == far.patience == [7.0] * 3


def test_a_recycle_that_no_node_takes_fails(post: Any, nodes: Any, broker: FakeClient, far: FarClient) -> None:
    broker.error = far.error = unreachable()
    assert post("/api/pools/digits/recycle").json()["error"]["code"] == "broker_unreachable"
    assert Audit.objects.get(action="recycle").outcome == "broker_unreachable"


def test_an_order_reaches_the_node_of_this_host_without_the_database(
    broker: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Any) -> Any:
        raise OperationalError("server closed the connection")

    monkeypatch.setattr(all_nodes, "known", away)
    pool_nodes.kill(broker, "digits", "digits-1", Order("ada"))
    assert [one[:2] for one in broker.orders] == [("digits-1", "kill")]


# The dashboard.


@pytest.fixture
def viewer(client: Client, django_user_model: Any, monkeypatch: pytest.MonkeyPatch) -> Client:
    hub = Hub()
    for module in ("page", "stream", "series"):
        monkeypatch.setattr(f"snakepit.pools.dashboard.{module}.hub", hub)
    user = django_user_model.objects.create_user("vera")
    user.user_permissions.add(Permission.objects.get(codename="view_pool"))
    client.force_login(user)
    return client


def test_the_overview_has_the_sums_and_a_row_for_each_node(viewer: Client, nodes: Any, far: FarClient) -> None:
    page = viewer.get("/").content.decode()
    assert 'data-region="cluster"' in page
    assert '<dd data-figure="answering">2<small> of 3</small>' in page
    assert '<dd data-figure="ready">6<small> of 6</small>' in page
    for name, state in {"node-1": "live", "node-2": "live", "node-3": "not answering"}.items():
        row = page.partition(f'data-node="{name}"')[2].partition("</tr>")[0]
        assert state in row, name
    assert "it advertises no address" in page
    gpu = page.partition('data-pool="gpu"')[2].partition("</tr>")[0]
    assert 'class="quiet nowrap">node-2</td>' in gpu
    digits = page.partition('data-pool="digits"')[2].partition("</tr>")[0]
    assert '<td class="number">5/5</td>' in digits
    assert "All healthy" not in page
    away = page.partition('data-alert="away:node-3"')[2].partition("</li>")[0]
    assert '<span class="tag" data-on="node-3">node-3</span>' in away


def test_an_alert_names_its_nodes_and_a_pool_has_a_row_for_the_node_that_differs(
    viewer: Client, nodes: list[Any], broker: FakeClient, far: FarClient
) -> None:
    third = FarClient()
    third.status = lambda *given, **more: replace(  # type: ignore[method-assign]
        found := FarClient.status(third, *given, **more), node=replace(found.node, name="node-3")
    )
    nodes[2] = AskedNode("node-3", third)  # type: ignore[arg-type]
    for one in (broker, far, third):
        one.pools = [pool("digits", size=2, ready=2, state="paused")]
    third.pools = [pool("digits", size=2, ready=0, state="failed", reason="cannot import")]
    page = viewer.get("/").content.decode()
    paused = page.partition('data-alert="paused:digits"')[2].partition("</li>")[0]
    assert 'data-on="node-1 node-2"' in paused
    assert page.count("data-pool-on=") == 1
    differs = page.partition('data-pool-on="node-3"')[2].partition("</tr>")[0]
    assert ("failed" in differs, "0/2" in differs) == (True, True)
    assert "on node-3: cannot import" in page.partition('data-pool="digits"')[2].partition("</tr>")[0]


def test_the_feed_has_the_events_of_all_nodes_by_time_with_their_node(
    viewer: Client, nodes: Any, broker: FakeClient, far: FarClient
) -> None:
    broker.events = [
        event(1, "worker.started", at=10.0, pool="digits"),
        event(2, "worker.died", at=30.0, pool="digits"),
    ]
    far.events = [event(1, "pool.failed", at=20.0, pool="digits")]
    for path in ("/", "/events/", "/pools/digits/"):
        found = re.findall(r'data-event="([^"]+)".*?data-on="([^"]+)"', viewer.get(path).content.decode(), re.DOTALL)
        assert found == [("worker.died", "node-1"), ("pool.failed", "node-2"), ("worker.started", "node-1")], path
    of_far = viewer.get("/events/?node=node-2").content.decode()
    assert ("pool.failed</span>" in of_far, "worker.died</span>" in of_far) == (True, False)


def test_a_host_without_a_broker_shows_the_other_nodes(
    viewer: Client, nodes: list[Any], broker: FakeClient, far: FarClient
) -> None:
    del nodes[0]
    broker.error = unreachable()
    page = viewer.get("/").content.decode()
    assert "No data." not in page
    assert '<dd data-figure="ready">4<small> of 4</small>' in page
    assert "Calls on this host go to the other nodes." in page
    assert 'data-worker="digits-9"' in viewer.get("/pools/digits/").content.decode()
    assert "No data." in viewer.get("/nodes/").content.decode()  # this page is about the broker of this host
    frames = viewer.get("/live/fragments/", {"topic": "totals"}).json()
    assert (frames["beat"]["state"], frames["beat"]["at"] > 0) == ("live", True)


def test_the_page_of_a_pool_has_the_workers_of_all_nodes_and_the_rest_of_the_chosen_one(
    viewer: Client, nodes: Any, far: FarClient
) -> None:
    page = viewer.get("/pools/digits/").content.decode()
    assert '<dd data-figure="ready">5<small> of 5</small>' in page
    tiles = re.findall(r'id="tile-([^"]+)".*?data-on="([^"]+)"', page, re.DOTALL)
    assert tiles == [("digits-1", "node-1"), ("digits-9", "node-2")]
    assert 'data-part-node="node-1"' in page
    far.patience.clear()
    assert 'data-part-node="node-2"' in viewer.get("/pools/digits/?node=node-2").content.decode()
    assert 'data-part-node="node-2"' in viewer.get("/pools/gpu/").content.decode()  # it lives there alone


def test_the_last_time_at_which_a_node_answered_is_shown(
    viewer: Client, nodes: list[Any], far: FarClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes[2] = replace(nodes[2], seen_at=1e9)
    hub = Hub()
    monkeypatch.setattr("snakepit.pools.dashboard.page.hub", hub)
    viewer.get("/")
    far.error = unreachable()
    hub.forget()
    page = viewer.get("/").content.decode()
    for name in ("node-2", "node-3"):
        row = page.partition(f'data-node="{name}"')[2].partition("</tr>")[0]
        assert "last seen <time" in row, name
    assert 'data-ago="1000000000' in page


def test_the_preview_of_a_recycle_has_each_node_that_the_order_reaches(
    viewer: Client, nodes: Any, far: FarClient, django_user_model: Any
) -> None:
    viewer.force_login(django_user_model.objects.create_superuser("root"))
    page = viewer.get("/pools/digits/recycle/").content.decode()
    assert re.findall(r'data-plan-of="([^"]+)"', page) == ["node-1", "node-2", "node-3"]
    assert "the order does not reach it: it advertises no address" in page
    only = viewer.get("/pools/gpu/recycle/").content.decode()
    assert re.findall(r'data-plan-of="([^"]+)"', only) == ["node-2", "node-3"]
    of_worker = viewer.get("/workers/digits-9/recycle/").content.decode()
    assert re.findall(r'data-plan-of="([^"]+)"', of_worker) == ["node-2"]
    row = Pool.objects.create(name="digits", adapter="digits")
    chosen = {"action": "recycle", "_selected_action": [row.pk]}
    admin = viewer.post("/admin/snakepit_pools/pool/", chosen).content.decode()
    assert "<td>4</td><td>2</td><td>2</td>" in admin
    assert "node-3 is not answering, so the order does not reach it: it advertises no address." in admin


def test_the_page_of_a_pool_has_a_row_for_each_node_that_hosts_it(viewer: Client, nodes: Any) -> None:
    page = viewer.get("/pools/digits/").content.decode()
    part = page.partition('data-region="pool-nodes"')[2].partition("</section>")[0]
    assert part.count("data-node=") == 2
    assert "5/5" in part.partition("data-node-sum")[2]
    assert "node-3 is not answering: it advertises no address" in part


def test_pages_show_the_other_nodes_while_the_broker_of_this_host_is_away(
    viewer: Client, nodes: Any, broker: FakeClient
) -> None:
    broker.error = unreachable()
    page = viewer.get("/").content.decode()
    assert '<dd data-figure="answering">1<small> of 3</small>' in page
    assert broker.error.message in page.partition('data-node="node-1"')[2].partition("</tr>")[0]


def test_the_page_of_workers_has_those_of_all_nodes(viewer: Client, nodes: Any) -> None:
    page = viewer.get("/workers/").content.decode()
    for name, node in {"digits-1": "node-1", "digits-9": "node-2"}.items():
        row = page.partition(f'data-worker="{name}"')[2].partition("</tr>")[0]
        assert f'<td data-node="{node}">{node}</td>' in row, name
    assert "node-3 is not answering, so its workers are missing here: it advertises no address" in page
    far = viewer.get("/workers/?node=node-2").content.decode()
    assert ('data-worker="digits-9"' in far, 'data-worker="digits-1"' in far, "node-3 is not" in far) == (
        True, False, False,
    )  # fmt: skip
    assert "<option selected>node-2</option>" in far
    assert viewer.get("/workers/?state=gone&node=node-2").status_code == 200


def test_the_page_of_a_worker_shows_one_of_another_node(viewer: Client, nodes: Any) -> None:
    page = viewer.get("/workers/digits-9/").content.decode()
    assert 'data-region="worker" data-worker="digits-9"' in page
    assert '<dd data-figure="node"><a href="/nodes/">node-2</a>' in page
    gone = viewer.get("/workers/digits-77/")
    assert gone.status_code == 404


def test_charts_are_of_all_nodes_or_of_the_chosen_one(viewer: Client, nodes: Any) -> None:
    page = viewer.get("/").content.decode()
    assert 'aria-label="Node of the charts"' in page
    assert 'data-node="node-2" data-span' not in page
    assert 'data-node="node-2" data-span' in viewer.get("/pools/digits/?node=node-2").content.decode()
    for node, ready in {"": 5, "node-1": 2, "node-2": 3}.items():
        found = viewer.get("/live/series/", {"pool": "digits", "node": node}).json()["columns"]
        assert [value for value in found["ready"] if value is not None][-1] == ready, node
    frames = viewer.get("/live/fragments/", {"points": ["digits", "digits@node-2", "*@node-3"]}).json()["points"]
    ready = {key: rows[-1][COLUMNS.index("ready")] for key, rows in frames.items()}
    assert ready == {"digits": 5, "digits@node-2": 3}


def test_the_palette_finds_workers_and_pools_of_all_nodes(viewer: Client, nodes: Any) -> None:
    titles = {entry["title"] for entry in viewer.get("/live/palette/").json()["entries"]}
    assert {"digits-1", "digits-9", "gpu"} <= titles


def test_with_one_node_nothing_more_is_shown_or_asked(viewer: Client, broker: FakeClient) -> None:
    for path in ("/", "/pools/digits/"):
        response = viewer.get(path)
        page = response.content.decode()
        assert response.status_code == 200
        assert 'data-region="cluster"' not in page
        assert 'data-region="pool-nodes"' not in page
    asked = len(broker.patience)
    Hub().fresh()
    assert len(broker.patience) == asked + 1


async def test_the_streams_poll_asks_the_nodes_again(
    nodes: Any, broker: FakeClient, far: FarClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit.pools.dashboard.asked_nodes.EVERY", 0.0)
    monkeypatch.setattr("snakepit.pools.dashboard.hub.TICK", 0.05)
    hub = Hub()
    monkeypatch.setattr(hub, "_read_rows", hub.nodes.find)
    async with asyncio.timeout(30):
        async with aclosing(hub.watch()) as states:
            async for state in states:
                if state.cluster is None or state.cluster.away == ():
                    continue
                away = [one.name for one in state.cluster.away]
                if far.error is None:
                    assert away == ["node-3"]
                    far.error = unreachable()
                elif away == ["node-2", "node-3"]:
                    break
    hub.close()

"""What the API shows, its pages, its health, its errors for what is no route, and its own documentation."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client

from snakepit.pools.api import health
from snakepit.pools.api.app import api
from snakepit.pools.broker.status import as_json
from snakepit.pools.models import Event, Node, Pool, Worker, known_keys
from snakepit.pools.web.last_status import last_status
from tests.process.integration.fakes import FakeClient, unreachable

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def get(client: Client, broker: FakeClient, make_key: Callable[..., str]) -> Callable[[str], Any]:
    key = make_key("view")
    return lambda url: client.get(url, headers={"Authorization": key})


@pytest.fixture
def workers(db: None) -> list[Worker]:
    node = Node.objects.create(name="node-1", seen_at=NOW)
    rows = [Worker(node=node, worker_id=f"digits-{n}", pool="digits", state="ready", seen_at=NOW) for n in range(5)]
    rows.append(Worker(node=node, worker_id="primes-0", pool="primes", state="gone", seen_at=NOW))
    return Worker.objects.bulk_create(rows)


def test_a_pool_shows_what_is_wanted_and_what_is(get: Any) -> None:
    Pool.objects.create(name="digits", adapter="digits", size=3)
    Pool.objects.create(name="primes", adapter="primes", size=1)
    listed = get("/api/pools").json()
    assert listed["broker"] == "reachable"
    assert [(one["name"], one["size"]) for one in listed["pools"]] == [("digits", 3), ("primes", 1)]
    assert listed["pools"][0]["live"]["ready"] == 2
    assert listed["pools"][1]["live"] is None
    one = get("/api/pools/digits").json()
    assert one.pop("snapshot")["stale"] is listed["snapshot"]["stale"] is False
    assert one == listed["pools"][0]


def test_pools_are_listed_while_the_broker_is_away(get: Any, broker: FakeClient) -> None:
    Pool.objects.create(name="digits", adapter="digits", size=3)
    broker.error = unreachable()
    listed = get("/api/pools").json()
    assert listed["broker"].startswith("No broker answers")
    assert listed["pools"][0]["live"] is None


def test_an_unknown_pool_or_worker_is_not_found(get: Any) -> None:
    assert get("/api/pools/other").json()["error"]["code"] == "pool_unknown"
    assert get("/api/workers/other").json()["error"]["code"] == "worker_unknown"
    assert get("/api/pools/a%00b").status_code == 404
    assert get("/api/workers/a%00b").status_code == 404


def test_commands_come_with_their_schemas(get: Any) -> None:
    found = get("/api/pools/digits/commands").json()
    assert found["pool"] == "digits"
    assert found["commands"][0]["name"] == "classify"
    assert found["commands"][0]["schema"]["type"] == "object"


def test_workers_are_paged_newest_first(get: Any, workers: list[Worker]) -> None:
    seen, cursor = [], ""
    for _ in range(10):
        found = get(f"/api/workers?limit=2{cursor}").json()
        seen += [one["id"] for one in found["workers"]]
        if found["next"] is None:
            break
        cursor = f"&cursor={found['next']}"
    assert seen == ["primes-0", *(f"digits-{n}" for n in (4, 3, 2, 1, 0))]


def test_a_page_costs_two_queries_whatever_its_size(
    get: Any, workers: list[Worker], django_assert_num_queries: Any
) -> None:
    get("/api/workers")
    known_keys.forget()
    with django_assert_num_queries(2):  # the key, the page
        assert len(get("/api/workers?limit=6").json()["workers"]) == 6


def test_workers_are_filtered(get: Any, workers: list[Worker]) -> None:
    assert len(get("/api/workers?pool=digits").json()["workers"]) == 5
    assert [one["id"] for one in get("/api/workers?state=gone").json()["workers"]] == ["primes-0"]
    assert get("/api/workers/digits-3").json()["node"] == "node-1"


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "cursor=x", "cursor=-1",
                                   "cursor=99999999999999999999",
                                   "state=odd", "pool=a%00b"])  # fmt: skip
def test_a_wrong_filter_is_refused_by_name(get: Any, query: str) -> None:
    response = get(f"/api/workers?{query}")
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "bad_request"
    assert query.split("=")[0] in response.json()["error"]["message"]


def test_events_are_filtered_and_paged(get: Any) -> None:
    for number in range(6):
        pool, kind = ("digits", "worker.died") if number % 2 else ("primes", "worker.started")
        Event.objects.create(at=NOW, kind=kind, pool=pool, worker=f"{pool}-{number}", data={"n": number})
    first = get("/api/events?pool=digits&limit=2").json()
    assert [one["data"]["n"] for one in first["events"]] == [5, 3]
    assert [one["data"]["n"] for one in get(f"/api/events?pool=digits&cursor={first['next']}").json()["events"]] == [1]
    assert [one["worker"] for one in get("/api/events?worker=primes-4").json()["events"]] == ["primes-4"]
    assert len(get("/api/events?kind=worker.started").json()["events"]) == 3


def test_nodes_are_listed(get: Any, workers: list[Worker]) -> None:
    assert [one["name"] for one in get("/api/nodes").json()["nodes"]] == ["node-1"]


def test_status_is_the_brokers_own(get: Any, broker: FakeClient) -> None:
    found = get("/api/status").json()
    assert found.pop("snapshot")["stale"] is False
    assert found == as_json(broker.status())
    broker.error = unreachable()
    stale = get("/api/status").json()
    assert stale.pop("snapshot")["stale"] is True
    assert stale == found
    last_status.forget()  # as a web process that has just started
    response = get("/api/status")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "broker_unreachable")


@pytest.mark.parametrize(
    ("body", "order"),
    [
        (b"", ("digits", "", "user-or-key", "")),
        (b'{"worker": "digits-1", "reason": "it leaks"}', ("digits", "digits-1", "user-or-key", "it leaks")),
    ],
)
def test_recycle_has_actor_and_reason(
    client: Client, broker: FakeClient, make_key: Callable[..., str], body: bytes, order: tuple[str, ...]
) -> None:
    headers = {"Authorization": make_key("operate")}
    response = client.post("/api/pools/digits/recycle", body, content_type="application/json", headers=headers)
    assert response.json() == {"planned": 2, "nodes": []}
    (pool, worker, actor, reason) = broker.orders[0]
    assert (pool, worker, reason) == (order[0], order[1], order[3])
    assert actor.startswith("key test (snk_")


@pytest.mark.parametrize("body", [b'{"wroker": "x"}', b'{"worker": 5}', b"[]", b'{"reason": "' + b"x" * 201 + b'"}'])
def test_a_wrong_recycle_order_is_refused(client: Client, broker: FakeClient, make_key: Any, body: bytes) -> None:
    headers = {"Authorization": make_key("operate")}
    response = client.post("/api/pools/digits/recycle", body, content_type="application/json", headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_request")
    assert broker.orders == []


def test_live_answers_without_a_key_and_without_a_broker(client: Client, broker: FakeClient) -> None:
    broker.error = unreachable()
    assert client.get("/api/live").status_code == 200


def test_ready_needs_a_ready_worker_in_every_enabled_pool(client: Client, broker: FakeClient) -> None:
    Pool.objects.create(name="digits", adapter="digits", size=1)
    Pool.objects.create(name="primes", adapter="primes", size=1, enabled=False)
    assert client.get("/api/ready").json() == {"ready": True, "problems": []}
    Pool.objects.update(enabled=True)
    response = client.get("/api/ready")
    assert response.status_code == 503
    assert response.json() == {"ready": False, "problems": ["1 of 2 pools has no ready worker"]}


@pytest.mark.parametrize("url", ["/api/pools", "/api/jobs", "/api/nothing", "/"])
def test_a_wrong_host_costs_one_line_of_the_log(url: str, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    response = client.get(url, headers={"Host": "evil.example"})
    assert response.status_code == 400
    if url.startswith("/api/"):
        assert response.json()["error"]["code"] == "bad_request"
    (record,) = [one for one in caplog.records if "evil.example" in one.getMessage()]
    assert record.exc_info is None
    assert "<" not in response.content.decode()


def test_the_description_has_the_bounds_of_limits_sizes_and_names(client: Client) -> None:
    described = client.get("/api/openapi.json").json()
    for path, operations in described["paths"].items():
        for operation in operations.values():
            for one in operation.get("parameters", ()):
                names = {"maxLength", "maxItems", "maximum", "enum", "exclusiveMinimum", "format", "anyOf"}
                bounds = set(one["schema"]) & names
                assert bounds or one["schema"].get("type") == "boolean", (path, one)
                if one["name"] == "limit" and path != "/api/workflows":  # each has all its jobs
                    assert (one["schema"]["minimum"], one["schema"]["maximum"]) == (1, 1000)
    scale = described["paths"]["/api/pools/{pool}/scale"]["post"]["requestBody"]["content"]["application/json"]
    size = scale["schema"]["properties"]["size"]
    assert size["minimum"] <= 1 < size["maximum"]


def test_ready_reports_an_unreachable_broker(client: Client, broker: FakeClient) -> None:
    broker.error = unreachable()
    response = client.get("/api/ready")
    assert (response.status_code, response.json()["problems"]) == (503, ["no broker runs here"])


def test_ready_reports_an_unavailable_database(
    client: Client, broker: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise OperationalError("could not connect to 10.0.0.9 as secret_user")

    monkeypatch.setattr(health, "_enabled_pools", away)
    response = client.get("/api/ready")
    assert response.status_code == 503
    assert "secret_user" not in response.content.decode()


@pytest.mark.parametrize("url", ["/api/nothing", "/api/pools/digits/nothing", "/api/pools/", "/api/live/"])
@pytest.mark.parametrize("method", ["get", "post", "delete"])
def test_what_is_no_route_answers_in_the_shape(client: Client, url: str, method: str) -> None:
    response = getattr(client, method)(url)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_a_wrong_method_answers_in_the_shape(client: Client) -> None:
    response = client.delete("/api/pools/digits/commands/classify")
    assert response.status_code == 405
    assert response["Allow"] == "POST"
    assert response.json()["error"]["code"] == "method_not_allowed"


def test_the_api_page_works_offline(client: Client, db: None) -> None:
    page = client.get("/api/docs")
    assert page.status_code == 200
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.content.decode())
    assert sources
    assert [one for one in sources if not one.startswith("/static/")] == []
    assert "://" not in page.content.decode()


def test_the_files_of_the_api_page_are_served(client: Client, settings: Any) -> None:
    from django.contrib.staticfiles import finders

    for name in re.findall(r'"/static/([^"]+)"', client.get("/api/docs").content.decode()):
        assert finders.find(name), f"{name} is not in any app"


def test_the_description_names_every_route_once(client: Client) -> None:
    description = client.get("/api/openapi.json").json()
    assert set(description["paths"]) == {
        "/api/keys/me", "/api/jobs", "/api/jobs/{job_id}", "/api/jobs/{job_id}/events", "/api/jobs/{job_id}/cancel",
        "/api/pools/{pool}/queue/pause", "/api/pools/{pool}/queue/resume",
        "/api/periodic", "/api/periodic/{name}", "/api/periodic/{name}/run", "/api/periodic/{name}/pause",
        "/api/periodic/{name}/resume", "/api/stream-tokens",
        "/api/jobs/batch", "/api/jobs/errors", "/api/jobs/export", "/api/workflows", "/api/workflows/{workflow_id}",
        "/api/jobs/cancel", "/api/jobs/retry", "/api/jobs/delete",
        "/api/jobs/{job_id}/retry", "/api/jobs/{job_id}/clone",
        "/api/pools/{pool}/commands/{command}", "/api/pools", "/api/pools/{pool}", "/api/pools/{pool}/commands",
        "/api/pools/{pool}/openapi.json",
        "/api/pools/{pool}/recycle", "/api/pools/{pool}/plan", "/api/pools/{pool}/scale",
        "/api/pools/{pool}/pause", "/api/pools/{pool}/resume", "/api/workers",
        "/api/workers/{worker}", "/api/workers/{worker}/dump", "/api/events", "/api/audit", "/api/nodes",
        "/api/nodes/{node}/drain", "/api/nodes/{node}/resume",
        "/api/diagnostics", "/api/diagnostics/compat", "/api/diagnostics/scaling",
        "/api/diagnostics/security",
        "/api/diagnostics/recommendations", "/api/diagnostics/recommendations/{advice}/apply",
        "/api/status", "/api/metrics", "/api/live", "/api/ready",
        "/api/workers/{worker}/kill",
    }  # fmt: skip
    documented = {path: one["responses"] for path, ways in description["paths"].items() for one in ways.values()}
    open_to_all = {"/api/live", "/api/ready"}
    lacking = {path: {"401", "403", "503"} - set(one) for path, one in documented.items() if path not in open_to_all}
    assert not any(lacking.values()), f"every operation may be refused, and meet a database that is away: {lacking}"
    called = documented["/api/pools/{pool}/commands/{command}"]["200"]["content"]
    binary = {"application/octet-stream", "application/x-npy", "application/vnd.apache.arrow.stream"}
    assert set(called) == {"application/json", "text/event-stream", *binary}
    bodies = description["paths"]["/api/pools/{pool}/commands/{command}"]["post"]["requestBody"]["content"]
    assert set(bodies) == {"application/json", "multipart/form-data", *binary}
    assert set(documented["/api/jobs/{job_id}/events"]["200"]["content"]) == {"text/event-stream"}
    assert set(documented["/api/metrics"]["200"]["content"]) == {"text/plain"}
    names = [one["operationId"] for path in description["paths"].values() for one in path.values()]
    assert len(names) == len(set(names))
    assert set(description["components"]["securitySchemes"]) == {"KeyAuth", "BrowserAuth", "StreamTokenAuth"}


def test_the_root_links_to_the_documentation(client: Client) -> None:
    assert client.get("/api/").json()["docs"] == "/api/docs"


def test_the_description_has_the_ranges_of_the_settings(settings: Any) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "PAGE_LIMIT": 70, "MAX_TIMEOUT": 9.0}
    schema = api.get_openapi_schema(path_prefix="/api/")

    def described(path: str, method: str, name: str) -> dict[str, Any]:
        (found,) = (one["schema"] for one in schema["paths"][path][method]["parameters"] if one["name"] == name)
        (number,) = (form for form in found["anyOf"] if form["type"] != "null")
        return number

    for path in ("/api/jobs", "/api/events", "/api/workers", "/api/audit"):
        assert (described(path, "get", "limit")["minimum"], described(path, "get", "limit")["maximum"]) == (1, 70)
    assert described("/api/pools/{pool}/commands/{command}", "post", "timeout")["maximum"] == 9.0
    body = schema["paths"]["/api/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["command"]["minLength"] == 1

"""Query parameters that a route does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from snakepit.pools.api.app import api
from tests.process.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db
VALUES = {"pool": "digits", "command": "classify", "worker": "digits-1", "node": "node-1", "advice": "size:digits",
          "name": "nightly", "workflow_id": "00000000-0000-0000-0000-000000000001",
          "job_id": "00000000-0000-0000-0000-000000000000"}  # fmt: skip
OPERATIONS = [
    (method, path, [one["name"] for one in found["parameters"] if one["in"] == "query"])
    for path, methods in api.get_openapi_schema(path_prefix="/api/")["paths"].items()
    for method, found in methods.items()
]


@pytest.mark.parametrize(("method", "path", "known"), OPERATIONS)
def test_an_unknown_query_parameter_is_refused_on_every_route(
    method: str, path: str, known: list[str], client: Client, broker: FakeClient, make_key: Callable[..., str]
) -> None:
    headers = {"Authorization": make_key("run", "view", "operate", "jobs", "configure")}
    response = getattr(client, method)(path.format(**VALUES) + "?pol=digits", headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["outcome"]) == (400, "bad_request", "not_started")
    assert "'pol'" in error["message"]
    assert error["details"]["known"] == known
    assert all(name in error["message"] for name in known)
    assert broker.calls == broker.orders == []


def test_a_parameter_that_may_be_given_once_is_refused_twice(client: Client, make_key: Callable[..., str]) -> None:
    headers = {"Authorization": make_key("run", "view", "jobs")}
    refused = client.get("/api/jobs?state=failed&state=lost", headers=headers)
    assert (refused.status_code, refused.json()["error"]["details"]["fields"].keys()) == (400, {"state"})
    options = "pool=none&command=c&tags=a&tags=b&priority=1"
    for more, status, field in (("", 404, "none"), ("&priority=2", 400, "priority: ")):
        url = f"/api/jobs/batch?{options}{more}"
        answer = client.post(url, "{}", content_type="application/x-ndjson", headers=headers)
        assert (answer.status_code, field in answer.json()["error"]["message"]) == (status, True), answer.content


def test_a_query_parameter_is_refused_above_the_length_that_is_described(
    client: Client, broker: FakeClient, make_key: Callable[..., str]
) -> None:
    headers = {"Authorization": make_key("run", "view", "operate", "jobs", "configure")}
    bounded = [
        (method, path, one["name"], one["schema"]["maxLength"])
        for path, methods in api.get_openapi_schema(path_prefix="/api/")["paths"].items()
        for method, found in methods.items()
        for one in found["parameters"]
        if one["in"] == "query" and "maxLength" in one["schema"]
    ]
    assert len(bounded) > 30
    for method, path, name, most in bounded:
        response = getattr(client, method)(f"{path.format(**VALUES)}?{name}={'a' * (most + 1)}", headers=headers)
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, "bad_request"), (path, name, error)
        assert name in error["message"], (path, name, error)
    assert broker.calls == broker.orders == []


def test_a_caller_without_a_key_does_not_get_that_far(client: Client) -> None:
    assert client.get("/api/pools?pol=digits").status_code == 401


def test_the_description_says_that_unknown_parameters_are_refused(client: Client) -> None:
    described: dict[str, Any] = client.get("/api/openapi.json").json()
    assert "query parameter" in described["info"]["description"]
    for methods in described["paths"].values():
        assert all("400" in operation["responses"] for operation in methods.values())


@pytest.mark.parametrize(("pool", "command", "wrong"), [("digits", "c" * 201, "command"), ("p" * 49, "c", "pool")])
def test_a_name_is_refused_above_its_length_before_a_stream_opens(
    pool: str, command: str, wrong: str, client: Client, broker: FakeClient, make_key: Callable[..., str]
) -> None:
    for query in ("", "?stream=true"):
        url = f"/api/pools/{pool}/commands/{command}{query}"
        answer = client.post(url, {}, content_type="application/json", headers={"Authorization": make_key("run")})
        assert (answer.status_code, list(answer.json()["error"]["details"]["fields"])) == (400, [wrong])
    assert broker.calls == []

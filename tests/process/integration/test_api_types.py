"""The types of responses: what the OpenAPI description says, and that real responses have these types."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from jsonschema import Draft202012Validator

from snakepit.pools.api.app import api
from snakepit.pools.api.examples import EXAMPLES, JOB_ID
from snakepit.pools.jobs import messages
from snakepit.pools.models import Audit, Event, Job, JobWorkflow, Node, PeriodicJob, Pool, Worker
from snakepit.pools.models.moments import utc_now
from tests.process.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db
# The only values that the API cannot type: results of commands, and what is inside of free data.
OPEN = {"CallAnswer.result", "JobOut.result", "JsonValue.items", "JsonValue.additionalProperties"}
DESCRIPTION = json.loads(json.dumps(api.get_openapi_schema(path_prefix="/api/")))
COMPONENTS = DESCRIPTION["components"]


def described() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Method, path, status and media types of every response with success."""
    for path, methods in DESCRIPTION["paths"].items():
        for method, operation in methods.items():
            for code, response in operation["responses"].items():
                if code.startswith("2"):
                    yield method, path, code, response.get("content", {})


def untyped(schema: Any, at: str) -> Iterator[str]:
    """The places of a schema that allow every value."""
    if schema is True or (isinstance(schema, dict) and not set(schema) - {"title", "description", "default"}):
        yield at
    elif isinstance(schema, dict):
        for name, one in schema.get("properties", {}).items():
            yield from untyped(one, f"{at}.{name}")
        for word in ("items", "additionalProperties"):
            if word in schema:
                yield from untyped(schema[word], f"{at}.{word}")
        for word in ("anyOf", "oneOf", "allOf", "prefixItems"):
            for one in schema.get(word, ()):
                yield from untyped(one, at)
        if schema.get("type") == "object" and not set(schema) & {"properties", "additionalProperties"}:
            yield at


def test_every_response_has_a_type() -> None:
    found = [f"{method} {path} {code}" for method, path, code, content in described() if not content and code != "204"]
    for method, path, _, content in described():
        for media, one in content.items():
            found += untyped(one.get("schema", True), f"{method} {path} {media}")
    for name, schema in COMPONENTS["schemas"].items():
        found += untyped(schema, name)
    assert set(found) == OPEN


def test_the_status_has_the_fields_of_the_broker() -> None:
    status = COMPONENTS["schemas"]["StatusOut"]["properties"]
    assert set(status) == {"node", "pools", "workers", "snapshot"}
    assert status["pools"]["items"] == {"$ref": "#/components/schemas/PoolStatus"}
    assert COMPONENTS["schemas"]["PoolStatus"]["properties"]["ready"]["type"] == "integer"
    live = COMPONENTS["schemas"]["PoolOut"]["properties"]["live"]
    assert {"$ref": "#/components/schemas/PoolStatus"} in live["anyOf"]


@pytest.fixture
def values(broker: FakeClient, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A row of each kind; the values of the paths."""
    monkeypatch.setattr(messages, "send", lambda *_: True)
    now = utc_now()
    Pool.objects.create(name="digits", adapter="digits", size=1)
    node = Node.objects.create(name="node-1", address="/run/broker.sock", pid=1, seen_at=now, problems=["a problem"])
    Worker.objects.create(node=node, worker_id="digits-1", pool="digits", state="ready", pid=7, seen_at=now)
    Event.objects.create(at=now, kind="worker.died", pool="digits", data={"exit": 1, "deep": [{"a": None}, 0.5]})
    Audit.objects.create(at=now, actor="user ada", action="scale", pool="digits", data={"before": 1})
    error = {"code": "adapter_error", "message": "KeyError: 'a'", "outcome": "failed", "details": {"type": "KeyError"}}
    job = Job.objects.create(pool="digits", command="classify", owner="grace", arguments={"pixels": [0.5]})
    Job.objects.filter(pk=job.pk).move("failed", finished_at=now, expires_at=now + timedelta(days=1), error=error)
    PeriodicJob.objects.create(name="nightly", pool="digits", command="classify", interval=3600, owner="grace")
    flow = JobWorkflow.objects.create(owner="grace")
    Job.objects.create(pool="digits", command="classify", owner="grace", workflow=flow)
    return {"pool": "digits", "command": "classify", "worker": "digits-1", "node": "node-1", "job_id": str(job.pk),
            "advice": "size:digits", "name": "nightly", "workflow_id": str(flow.pk)}  # fmt: skip


# There is no recommendation to apply, and the machine's own doctor takes seconds.
LEFT_OUT = {"/api/diagnostics/recommendations/{advice}/apply", "/api/diagnostics"}
QUERIES = {
    "/api/diagnostics/compat": "?pool=digits",
    "/api/diagnostics/scaling": "?pool=digits",
    "/api/jobs/batch": "?pool=digits&command=classify",
}


def examples(operation: dict[str, Any]) -> list[tuple[str, Any]]:
    """The media types of an operation's body that have an example, with it."""
    bodies = operation.get("requestBody", {}).get("content", {})
    return [(kind, one["example"]) for kind, one in bodies.items() if "example" in one]


def with_values(example: Any, values: dict[str, str]) -> str:
    """The text of an example, with what exists here; a new pool without workers would change /api/ready."""
    text = example if isinstance(example, str) else json.dumps(example)
    text = text.replace(JOB_ID, values["job_id"]).replace('"pool": "primes"', '"pool": "digits"')
    return text.replace('"command": "count"', '"command": "classify"').replace('"enabled": true', '"enabled": false')


def test_every_body_has_an_example_that_fits_its_schema() -> None:
    seen = set()
    for path, methods in DESCRIPTION["paths"].items():
        for method, operation in methods.items():
            if not (bodies := operation.get("requestBody", {}).get("content")):
                continue
            assert [kind for kind, _ in examples(operation)] == list(bodies)[:1], (method, path)
            for kind, example in examples(operation):
                schema = {**bodies[kind]["schema"], "additionalProperties": path.endswith("{command}")}
                Draft202012Validator(schema).validate(example)
            seen.add(operation["operationId"])
    assert seen == set(EXAMPLES)


@pytest.mark.django_db(transaction=True)  # some routes read the database in a thread of their own
def test_every_real_response_has_the_type_that_is_described(
    values: dict[str, str], client: Client, make_key: Callable[..., str]
) -> None:
    headers = {"Authorization": make_key("run", "view", "operate", "jobs", "configure")}
    seen = set()
    for method, path, _, content in sorted(described(), key=lambda one: one[0] == "delete"):
        if path in LEFT_OUT or "application/json" not in content:
            continue
        body = {"data": "", "content_type": "application/json"} if method in ("post", "patch") else {}
        for kind, example in examples(DESCRIPTION["paths"][path][method]):
            body = {"data": with_values(example, values), "content_type": kind}
        response = getattr(client, method)(path.format(**values) + QUERIES.get(path, ""), headers=headers, **body)
        assert 200 <= response.status_code < 300, (method, path, response.content)
        said = DESCRIPTION["paths"][path][method]["responses"][str(response.status_code)]["content"]["application/json"]
        validator = Draft202012Validator({**said["schema"], "components": COMPONENTS})
        problems = [
            f"{method} {path} {one.json_path}: {one.message[:200]}" for one in validator.iter_errors(response.json())
        ]
        assert problems == []
        seen.add(path)
    assert len(seen) > 25


@pytest.mark.parametrize("url", ["/api/pools/other", "/api/workers?limit=0", "/api/jobs/unknown"])
def test_every_refusal_has_the_type_of_a_failure(url: str, client: Client, make_key: Callable[..., str]) -> None:
    response = client.get(url, headers={"Authorization": make_key("view")})
    schema = {"$ref": "#/components/schemas/Failure", "components": COMPONENTS}
    assert response.status_code in (400, 404)
    Draft202012Validator(schema).validate(response.json())


def test_a_pool_has_its_own_description(client: Client, broker: FakeClient, make_key: Callable[..., str]) -> None:
    def get(scope: str) -> Any:
        return client.get("/api/pools/digits/openapi.json", headers={"Authorization": make_key(scope)})

    assert get("run").status_code == 403
    found = get("view").json()
    (path,) = found["paths"]
    assert path == "/api/pools/digits/commands/classify"
    assert set(found["components"]["securitySchemes"]) == {"KeyAuth", "BrowserAuth"}
    call = client.post(path, "{}", content_type="application/json", headers={"Authorization": make_key("run")})
    said = found["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    Draft202012Validator({**said, "components": found["components"]}).validate(call.json())
    broker.known = []
    early = get("view")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "commands_pending")
    said = DESCRIPTION["paths"]["/api/pools/{pool}/openapi.json"]["get"]["responses"]
    assert "409" in said

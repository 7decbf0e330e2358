"""The matrix of rights: every identity on every route of the API. A route without an entry fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client

from snakepit.pools import permissions
from snakepit.pools.api.app import api
from snakepit.pools.jobs import messages
from snakepit.pools.models import ApiKey, Job, JobWorkflow, Node, PeriodicJob, Pool, Worker
from snakepit.pools.models.moments import utc_now
from tests.process.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db
OPEN, SIGNED_IN = None, frozenset[str]()


@dataclass(frozen=True, slots=True)
class Route:
    """What a route needs. `of`: it is about the pool digits, so that a key for another pool is refused."""

    needs: frozenset[str] | None
    of: bool = False
    any_of: bool = False  # one of them is enough
    hidden: bool = False  # a job: 404 for those who may not see it
    elsewhere: bool = False  # 404 for a key for another pool


def needs(*names: str, **more: bool) -> Route:
    return Route(frozenset(names), **more)


OPERATE = needs("operate_pool", of=True)
PERIODIC = needs("operate_pool", elsewhere=True)
SEES = ("view_job", "manage_job")
CHANGES = needs("manage_job", "run_command", any_of=True, of=True)
COUNT = {"pool": "digits", "dry_run": True}
ROUTES = {
    "GET /live": Route(OPEN), "GET /ready": Route(OPEN),
    "GET /keys/me": Route(SIGNED_IN),
    "POST /pools/{pool}/commands/{command}": needs("run_command", of=True),
    "POST /jobs": needs("run_command", of=True), "POST /jobs/batch": needs("run_command", of=True),
    "GET /jobs": needs(*SEES, "run_command", any_of=True),
    "GET /jobs/errors": needs(*SEES, "run_command", any_of=True),
    "GET /jobs/export": needs(*SEES, "run_command", any_of=True),
    "GET /periodic": needs("view_periodicjob"), "GET /periodic/{name}": needs("view_periodicjob", elsewhere=True),
    "POST /periodic": needs("add_periodicjob", of=True),
    "PATCH /periodic/{name}": needs("change_periodicjob", elsewhere=True),
    "POST /periodic/{name}/run": PERIODIC,
    "POST /periodic/{name}/pause": PERIODIC, "POST /periodic/{name}/resume": PERIODIC,
    "GET /workflows": needs(*SEES, "run_command", any_of=True),
    "GET /workflows/{workflow_id}": needs(hidden=True),
    "POST /workflows": needs("run_command", of=True),
    "POST /jobs/cancel": CHANGES, "POST /jobs/retry": CHANGES, "POST /jobs/delete": CHANGES,
    "GET /jobs/{job_id}": needs(hidden=True),
    "GET /jobs/{job_id}/events": needs("view_payload", hidden=True),
    "POST /stream-tokens": needs("view_payload", hidden=True),
    "POST /jobs/{job_id}/cancel": needs("manage_job", hidden=True),
    "POST /jobs/{job_id}/retry": needs("manage_job", hidden=True),
    "POST /jobs/{job_id}/clone": needs("run_command", "view_payload", hidden=True),
    "GET /pools": needs("view_pool"), "GET /pools/{pool}": needs("view_pool", of=True),
    "POST /pools": needs("add_pool", of=True), "PATCH /pools/{pool}": needs("change_pool", of=True),
    "GET /pools/{pool}/commands": needs("view_pool", of=True),
    "GET /pools/{pool}/openapi.json": needs("view_pool", of=True),
    "GET /pools/{pool}/plan": needs("view_pool", "view_worker", of=True),
    "POST /pools/{pool}/recycle": OPERATE, "POST /pools/{pool}/scale": OPERATE,
    "POST /pools/{pool}/pause": OPERATE, "POST /pools/{pool}/resume": OPERATE,
    "POST /pools/{pool}/queue/pause": OPERATE, "POST /pools/{pool}/queue/resume": OPERATE,
    "POST /workers/{worker}/kill": OPERATE, "POST /workers/{worker}/dump": OPERATE,
    "POST /nodes/{node}/drain": OPERATE, "POST /nodes/{node}/resume": OPERATE,
    "GET /nodes/{node}/drain": needs("view_node", of=True),
    "GET /workers": needs("view_worker"), "GET /workers/{worker}": needs("view_worker", of=True),
    "GET /events": needs("view_event"), "GET /audit": needs("view_audit"), "GET /nodes": needs("view_node"),
    "GET /status": needs("view_pool"), "GET /metrics": needs("view_pool", "view_worker", of=True),
    "GET /diagnostics": needs("view_pool", "view_node"),
    "GET /diagnostics/security": needs("change_pool", "view_node"),
    "GET /diagnostics/compat": needs("view_pool", "view_worker", of=True),
    "GET /diagnostics/recommendations": needs("view_pool", "view_worker"),
    "GET /diagnostics/scaling": needs("view_pool", "view_worker", "view_node", of=True),
    "POST /diagnostics/recommendations/{advice}/apply": needs("change_pool", of=True),
    "DELETE /periodic/{name}": needs("delete_periodicjob", elsewhere=True),
    "DELETE /pools/{pool}": needs("delete_pool", of=True),  # the last one: the others need the pool
}  # fmt: skip
VALUES = {
    "pool": "digits",
    "command": "classify",
    "worker": "digits-1",
    "node": "node-1",
    "workflow_id": "01a22a6c-b59f-708a-99f6-bda0934b3ecc",
    "advice": "size:digits",
    "name": "nightly",
}
QUERIES = {
    "POST /jobs/batch": "?pool=digits&command=classify",
    "GET /diagnostics/compat": "?pool=digits",
    "GET /diagnostics/scaling": "?pool=digits",
}
BODIES = {"POST /jobs": {"pool": "digits", "command": "classify"}, "POST /pools/{pool}/scale": {"size": 2},
          "POST /pools": {"name": "digits", "adapter": "digits"},
          "POST /periodic": {"name": "often", "pool": "digits", "command": "classify", "interval": 60},
          "POST /workflows": {"jobs": [{"pool": "digits", "command": "classify"}]},
          "POST /jobs/cancel": COUNT, "POST /jobs/retry": COUNT, "POST /jobs/delete": COUNT,
          "POST /stream-tokens": {"job": "JOB"}}  # fmt: skip

KEYS: dict[str, dict[str, Any]] = {
    **{f"a key with {scope}": {"scopes": (scope,)} for scope in permissions.SCOPES},
    "a key with all scopes": {"scopes": tuple(permissions.SCOPES)},
    "a key for another pool": {"scopes": tuple(permissions.SCOPES), "pools": ("other",)},
    "an expired key": {"scopes": tuple(permissions.SCOPES)},
    "a revoked key": {"scopes": tuple(permissions.SCOPES)},
    "a key of an inactive owner": {"scopes": tuple(permissions.SCOPES)},
    "a key of an owner without rights": {"scopes": tuple(permissions.SCOPES)},
}
USERS = ("a user", "staff", *permissions.ROLES, "a superuser")
IDENTITIES = ("nobody", "a wrong key", *KEYS, *USERS)
REFUSED = ("nobody", "a wrong key", "an expired key", "a revoked key", "a key of an inactive owner")


def granted(identity: str) -> frozenset[str]:
    if identity == "a superuser":
        return permissions.ALL
    if identity == "staff":
        return permissions.VIEW
    if identity in permissions.ROLES:
        return permissions.of_scopes(permissions.ROLES[identity])
    if identity in ("a user", "a key of an owner without rights"):
        return frozenset()
    return permissions.of_scopes(KEYS[identity]["scopes"])


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, broker: FakeClient) -> str:
    monkeypatch.setattr(messages, "send", lambda *_: True)
    Pool.objects.create(name="digits", adapter="digits", size=1)
    node = Node.objects.create(name="node-1", address="/run/broker.sock", pid=1, seen_at=utc_now())
    Worker.objects.create(node=node, worker_id="digits-1", pool="digits", state="ready", pid=7, seen_at=utc_now())
    flow = JobWorkflow.objects.create(pk=VALUES["workflow_id"])
    PeriodicJob.objects.create(name="nightly", pool="digits", command="classify", interval=3600, owner="grace")
    job = Job.objects.create(pool="digits", command="classify", owner="grace", workflow=flow)
    Job.objects.filter(pk=job.pk).move("cancelled", finished_at=utc_now(), expires_at=utc_now() + timedelta(days=1))
    return str(job.pk)


def signed_in(identity: str, client: Client, users: Any) -> dict[str, str]:
    if identity == "nobody":
        return {}
    if identity == "a wrong key":
        return {"Authorization": "Bearer snk_000000000000_" + "a" * 43}
    if identity in USERS:
        user = users.objects.create_user("lena", is_staff=identity == "staff", is_superuser=identity == "a superuser")
        user.groups.add(*Group.objects.filter(name=identity))
        client.force_login(user)
        return {}
    owner = users.objects.create_user("ada", is_superuser=identity != "a key of an owner without rights")
    key, secret = ApiKey.create(name="test", owner=owner, **KEYS[identity])
    if identity == "an expired key":
        ApiKey.objects.filter(pk=key.pk).update(expires_at=utc_now() - timedelta(seconds=1))
    if identity == "a revoked key":
        key.revoke()
    if identity == "a key of an inactive owner":
        users.objects.update(is_active=False)
    return {"Authorization": f"Bearer {secret}"}


def expected(identity: str, route: Route) -> str:
    """`refused`, `denied`, `missing` or `allowed`."""
    if route.needs is OPEN:
        return "allowed"
    if identity in REFUSED:
        return "refused"
    rights, elsewhere = granted(identity), identity == "a key for another pool"
    if route.hidden and (elsewhere or not rights & set(SEES)):
        return "missing"
    if route.elsewhere and elsewhere:
        return "missing"
    lacks = not rights & route.needs if route.any_of else not route.needs <= rights
    return "denied" if lacks or (route.of and elsewhere) else "allowed"


def outcome(status: int, route: Route) -> str:
    outcomes = {401: "refused", 403: "denied", **({404: "missing"} if route.hidden or route.elsewhere else {})}
    return outcomes.get(status, "allowed")


def test_every_route_has_an_entry() -> None:
    paths = api.get_openapi_schema(path_prefix="")["paths"]
    assert {f"{method.upper()} {path}" for path, found in paths.items() for method in found} == set(ROUTES)
    assert len(IDENTITIES) >= 20


@pytest.mark.parametrize("identity", IDENTITIES)
def test_an_identity_may_do_what_its_rights_say(
    identity: str, job: str, client: Client, django_user_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = signed_in(identity, client, django_user_model)
    wrong: list[Callable[[], Any] | str] = []
    for name, route in ROUTES.items():
        method, path = name.split(" ")
        url = "/api" + path.format(**VALUES, job_id=job) + QUERIES.get(name, "")
        body = json.dumps(BODIES.get(name, {})).replace("JOB", job)
        data = {} if method == "GET" else {"data": body, "content_type": "application/json"}
        ask = getattr(client, method.lower())(url, headers=headers, **data)
        found = outcome(ask.status_code, route)
        if found != expected(identity, route):
            wrong.append(f"{name}: {ask.status_code}, expected {expected(identity, route)}: {ask.content[:150]!r}")
    assert wrong == []

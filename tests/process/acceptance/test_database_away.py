"""The web while a real PostgreSQL is stopped: every operation says so in the one shape, every page in plain words."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import services
from tests.brokers import PATIENCE, ROOT, eventually
from tests.ports import free_port
from tests.process.acceptance.test_jobs import DRIVER, SETTINGS

OPEN = {"live": 200, "ready": 503}  # probes: no key, a shape of their own


@contextmanager
def web(home: Path, database: str) -> Iterator[tuple[httpx.Client, str]]:
    """A web server of the site: (a client of it, the secret of an API key)."""
    environment = {
        **os.environ, "DJANGO_SETTINGS_MODULE": SETTINGS, "PYTHONPATH": str(ROOT),
        "SNAKEPIT_STATE_DIR": str(home / "state"), "SNAKEPIT_RUNTIME_DIR": str(home / "run"),
        "SNAKEPIT_DATABASE_URL": database, "SNAKEPIT_CELERY_URL": "memory://",
    }  # fmt: skip
    asked = "".join(json.dumps({"what": what}) + "\n" for what in ("migrate", "key"))
    answers = subprocess.run(
        [sys.executable, str(DRIVER)],
        cwd=ROOT,
        env=environment,
        input=asked,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    key = json.loads(answers[1])["value"]
    port = free_port()
    with (home / "web.log").open("wb") as log:
        command = [sys.executable, "-m", "uvicorn", "snakepit.site.asgi:application", "--port", str(port)]
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
            until_it_listens(client, server)
            yield client, key
    finally:
        server.terminate()
        server.wait(PATIENCE)


def until_it_listens(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        try:
            client.get("/api/live")
            return
        except httpx.TransportError:
            threading.Event().wait(0.1)
    raise AssertionError("the web server did not come up")


def until_it_answers(client: httpx.Client, path: str, headers: dict[str, str] | None = None) -> None:
    """Wait for a database that answers in time. After a frozen one, one request or page in three seconds asks it."""

    def answered() -> bool:
        status = client.get(path, headers=headers).status_code
        assert status in (200, 503)
        return status == 200

    eventually(answered, path)


def operations(client: httpx.Client) -> list[tuple[str, str, str]]:
    """(operation, method, path) of all that the API documents, with something in place of each parameter."""
    some = {"job_id": "01a1fcd1-9b2b-7566-a324-7096f56f39b8"}
    return [
        (one["operationId"], method.upper(), re.sub(r"\{(\w+)\}", lambda found: some.get(found[1], "x"), path))
        for path, methods in client.get("/api/openapi.json").json()["paths"].items()
        for method, one in methods.items()
    ]


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.postgres
def test_every_operation_and_page_reports_an_unavailable_database_and_works_when_it_is_back(
    postgres_url: str, tmp_path: Path
) -> None:
    # The fixture decides about skipping; the server that is stopped here is this test's own.
    with services.restartable_postgres() as database, web(tmp_path, database.url) as (client, key):
        headers = {"Authorization": f"Bearer {key}"}
        until_it_answers(client, "/api/jobs", headers)
        with database.frozen():
            check_frozen(client, headers)
        until_it_answers(client, "/api/jobs", headers)
        database.crash()
        # The key above stays known for some seconds, and its calls need no database.
        unseen = {"Authorization": f"Bearer snk_{12 * '0'}_{43 * 'x'}"}
        for name, method, path in operations(client):
            reply = client.request(method, path, headers=unseen, json=None if method == "GET" else {})
            if name in OPEN:
                assert reply.status_code == OPEN[name], name
                continue
            check(name, method, reply)
        for page in ("/", "/pools/", "/admin/", "/admin/snakepit_pools/job/"):
            reply = client.get(page, headers={"Cookie": "sessionid=0123456789abcdefghijklmnopqrstuv"})
            assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5"), page
            assert "The database is unavailable" in reply.text
            assert "Start the database server" in reply.text
            assert "The broker does not answer either" in reply.text  # none runs in this test
        database.start()
        until_it_answers(client, "/api/jobs", headers)
        until_it_answers(client, "/admin/login/")


def check_frozen(client: httpx.Client, headers: dict[str, str]) -> None:
    """The server accepts connections, and answers none: a request ends by the connect_timeout of the site."""
    check("list_jobs", "GET", client.get("/api/jobs", headers=headers))
    assert client.get("/api/live").status_code == 200
    ready = client.get("/api/ready")
    assert (ready.status_code, ready.json()["problems"][0]) == (503, "the database does not respond")
    page = client.get("/", headers={"Cookie": "sessionid=0123456789abcdefghijklmnopqrstuv"})
    assert page.status_code == 503
    assert "The database is unavailable" in page.text


def check(name: str, method: str, reply: httpx.Response) -> None:
    assert reply.status_code == 503, (name, reply.text)
    assert reply.headers["Retry-After"] == "5", name
    body: dict[str, Any] = reply.json()
    outcome = body["error"]["outcome"]
    assert outcome in (("not_started",) if method == "GET" else ("not_started", "unknown"))
    message = "The database does not answer."
    assert body == {"error": {"code": "database_unavailable", "message": message, "outcome": outcome, "details": {}}}, (
        name
    )

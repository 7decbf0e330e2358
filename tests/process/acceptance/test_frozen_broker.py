"""The web and the shell beside a real broker that is frozen: every surface answers soon, and shows the age of its data.

The web server had a status of the broker before. All routes are asked at the same time.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.brokers import PATIENCE, ROOT, broker, eventually
from tests.process.acceptance.test_database_away import operations, web
from tests.process.acceptance.test_jobs import SETTINGS

BOUND = 120.0  # seconds; the usual is one, and much more while 45 requests come at once to a busy machine
LONGEST_QUESTION = 1.5  # seconds that a question to the broker is given; once it was ten
NO_BROKER = {"call", "submit_job"}  # they wait for their own deadline, or need no broker
STALE = ("list_pools", "get_pool", "status", "drain_status")  # answered from the last status
PAGES = (
    "/", "/pools/pool/", "/nodes/", "/workers/", "/diagnostics/", "/diagnostics/report/", "/playground/?pool=pool",
    "/pools/pool/recycle/", "/admin/", "/admin/snakepit_pools/pool/", "/admin/snakepit_pools/pool/1/change/",
    "/admin/snakepit_pools/node/",
)  # fmt: skip
ORDERS = {"recycle", "scale", "pause", "resume", "kill", "dump", "drain_node", "resume_node", "apply_recommendation"}


def ask(client: httpx.Client, headers: dict[str, str], method: str, path: str) -> tuple[float, httpx.Response]:
    began = time.monotonic()
    body: dict[str, Any] | None = None if method == "GET" else {"size": 2} if path.endswith("/scale") else {}
    reply = client.request(method, path, headers=headers, json=body, timeout=BOUND)
    return time.monotonic() - began, reply


def paths(client: httpx.Client) -> list[tuple[str, str, str]]:
    """The operations, with the names of this test's pool, node and worker."""
    found = []
    for name, method, path in operations(client):
        given = path.replace("/pools/x", "/pools/pool").replace("/nodes/x", "/nodes/test")
        needs = {"compat": "?pool=pool", "scaling": "?pool=pool"}.get(name, "")
        found.append((name, method, given.replace("/commands/x", "/commands/echo") + needs))
    return found


@pytest.mark.slow
@pytest.mark.chaos
def test_every_surface_answers_soon_beside_a_frozen_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with broker({"pool": {"size": 1}}) as node:
        node.ready("pool")
        (tmp_path / "run").symlink_to(node.runtime)
        with web(tmp_path, f"sqlite:///{tmp_path / 'db.sqlite3'}") as (client, key):
            headers = {"Authorization": f"Bearer {key}"}
            until_fresh(client, headers)
            known = [*paths(client), *((page, "GET", page) for page in PAGES)]
            sign_in(client)
            node.process.send_signal(signal.SIGSTOP)
            try:
                answers = everything(client, headers, known)
                shell = in_shell(tmp_path, "status")
                reports = [in_shell(tmp_path, *words).stdout for words in (("doctor",), ("compat", "pool"))]
            finally:
                node.process.send_signal(signal.SIGCONT)
            check(answers)
            assert shell.returncode == 3, shell
            assert "frozen or overloaded" in json.loads(shell.stdout)["error"]["message"]
            checks = {one["check"]: one["evidence"] for one in json.loads(reports[0])["findings"]}
            assert_asked_briefly(checks["broker"])
            assert_asked_briefly(json.loads(reports[1])["note"])
            node.process.send_signal(signal.SIGCONT)
            after = until_fresh(client, headers)
            # What was refused beside the frozen broker does not happen later.
            assert not after["node"]["draining"]
            assert [worker["state"] for worker in after["workers"]] == ["ready"]
            node.stop()
            check_stopped(
                everything(client, headers, [one for one in known if one[0] in (*STALE, "list_commands", "/")])
            )


def until_fresh(client: httpx.Client, headers: dict[str, str]) -> dict[str, Any]:
    """A status of the broker as it is now."""

    def fresh() -> dict[str, Any] | None:
        answer = client.get("/api/status", headers=headers)
        found: dict[str, Any] = answer.json()
        return found if answer.status_code == 200 and not found["snapshot"]["stale"] else None

    found: dict[str, Any] = eventually(fresh, "a fresh status")
    return found


def sign_in(client: httpx.Client) -> None:
    client.get("/admin/login/")
    form = {"username": "chaos", "password": "chaos", "csrfmiddlewaretoken": client.cookies["csrftoken"]}
    assert client.post("/admin/login/?next=/admin/", data=form).status_code == 302


def everything(
    client: httpx.Client, headers: dict[str, str], known: list[tuple[str, str, str]]
) -> dict[str, tuple[float, httpx.Response]]:
    with ThreadPoolExecutor(max_workers=len(known)) as threads:
        asked = {
            name: threads.submit(ask, client, headers, method, path)
            for name, method, path in known
            if name not in NO_BROKER
        }
        return {name: one.result() for name, one in asked.items()}


def in_shell(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "DJANGO_SETTINGS_MODULE": SETTINGS, "PYTHONPATH": str(ROOT),
        "SNAKEPIT_STATE_DIR": str(home / "state"), "SNAKEPIT_RUNTIME_DIR": str(home / "run"),
    }  # fmt: skip
    command = [sys.executable, "-m", "snakepit.pools.cli", *words, "--json"]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def check_stopped(answers: dict[str, tuple[float, httpx.Response]]) -> None:
    """The broker has ended: the last status, and the command that starts it."""
    for name in STALE:
        snapshot = answers[name][1].json()["snapshot"]
        assert (snapshot["stale"], "snakepit broker" in snapshot["reason"]) == (True, True), (name, snapshot)
    refused = answers["list_commands"][1]
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "broker_unreachable")
    assert "No broker runs here" in answers["/"][1].text


def assert_asked_briefly(reason: str) -> None:
    """The reason has the time that the question was given; the time of the whole answer depends on the machine."""
    assert "frozen or overloaded" in reason
    given = re.search(r"did not answer within ([\d.]+) s", reason)
    assert given, reason
    assert float(given[1]) <= LONGEST_QUESTION, reason


def check(answers: dict[str, tuple[float, httpx.Response]]) -> None:
    for name, (took, reply) in answers.items():
        print(f"{name}: {reply.status_code} after {took:.2f} s {reply.text[:120]!r}")
        if name in STALE:
            found = reply.json()["snapshot"]
            assert (reply.status_code, found["stale"]) == (200, True), name
            assert found["age"] > 0, name
            assert found["since"] >= found["at"], name
            assert_asked_briefly(found["reason"])
        if reply.status_code == 503 and name != "ready":
            error = reply.json()["error"]
            assert (error["code"], error["outcome"]) == ("broker_unreachable", "not_started"), (name, error)
            assert_asked_briefly(error["message"])
    assert answers["ready"][1].status_code == 503
    assert {page: answers[page][1].status_code for page in PAGES} == dict.fromkeys(PAGES, 200)
    assert "The broker does not respond" in answers["/"][1].text
    assert {name for name in ORDERS if answers[name][1].status_code == 200} == {"scale", "pause", "resume"}
    assert answers["pause"][1].json()["in_force"] is False  # the row is changed, and the answer says so

"""A known load through broker, database, Celery and web: every surface says what was done.

No page is open while the load runs. In between, a worker is killed and the broker is frozen.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from snakepit.pools.broker import errors
from snakepit.pools.client import Client, connect
from tests import services
from tests.brokers import PATIENCE, ROOT
from tests.ports import free_port
from tests.process.acceptance.test_database_away import until_it_listens
from tests.process.acceptance.test_jobs import DRIVER, SETTINGS

COUNTED = ("finished", "failed", "refused", "died")


class Site:
    """A broker that records into the database, a Celery worker and a web server, each a process."""

    def __init__(self, home: Path, transport: str) -> None:
        self.home = home
        self.environment = {
            **os.environ, "DJANGO_SETTINGS_MODULE": SETTINGS, "PYTHONPATH": str(ROOT),
            "SNAKEPIT_STATE_DIR": str(home / "state"), "SNAKEPIT_RUNTIME_DIR": str(home / "run"),
            "SNAKEPIT_DATABASE_URL": f"sqlite:///{home / 'db.sqlite3'}", "SNAKEPIT_CELERY_URL": transport,
        }  # fmt: skip
        self.processes: list[subprocess.Popen[bytes]] = []
        answers = self.drive("migrate", "key")
        self.key = answers[1]

    def drive(self, *asked: str) -> list[Any]:
        lines = "".join(json.dumps({"what": one}) + "\n" for one in asked)
        done = subprocess.run(
            [sys.executable, str(DRIVER)], cwd=ROOT, env=self.environment, input=lines, capture_output=True, text=True,
            check=True, timeout=PATIENCE,
        )  # fmt: skip
        return [json.loads(line)["value"] for line in done.stdout.splitlines()]

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.home / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=ROOT, env=self.environment, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def shell(self) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "snakepit.pools.cli", "status", "--json"], cwd=ROOT, env=self.environment,
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout)
        return found if done.returncode == 0 else {"pools": [{}]}

    def stop(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            process.wait(PATIENCE)


@contextmanager
def site(home: Path) -> Iterator[tuple[Site, httpx.Client, Client]]:
    port = free_port()
    with services.valkey() as transport:
        made = Site(home, transport)
        try:
            made.start("snakepit.pools.cli", "broker")
            made.start("celery", "-A", "snakepit.site", "worker", "--pool=threads", "--concurrency=2", "-n", "w@test")
            web = made.start("uvicorn", "snakepit.site.asgi:application", "--port", str(port))
            headers = {"Authorization": f"Bearer {made.key}"}
            with (
                httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, headers=headers) as client,
                connect(str(home / "run" / "broker.sock"), connect_timeout=PATIENCE) as broker,
            ):
                until_it_listens(client, web)
                until(lambda: broker.status().pools[0].ready == 2, "two ready workers")
                yield made, client, broker
        finally:
            made.stop()


def until(question: Callable[[], Any], what: str) -> Any:
    """Ask again and again, within bounds: other processes give no other sign."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(errors.BrokerError):
            if answer := question():
                return answer
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


def load(web: httpx.Client, broker: Client) -> Counter[str]:
    """Do a known number of calls of every kind; returns them by the code of their answer."""
    done: Counter[str] = Counter()
    done["ok"] += len(list(broker.map("pool", "echo", ({"value": number} for number in range(20)))))
    for _ in range(3):
        done["ok"] += web.post("/api/pools/pool/commands/echo", json={"value": 1}).status_code == 200
    for _ in range(2):
        done["ok"] += list(broker.stream("pool", "count", to=3)) == [0, 1, 2]
    for _ in range(4):
        done[error_of(broker, "raises")] += 1
    done[error_of(broker, "nothing_like_this")] += 1
    for _ in range(2):
        done[error_of(broker, "obedient", timeout=0.3)] += 1
    for _ in range(2):
        call = broker.submit("pool", "obedient")
        until(lambda: any(one.calls for one in broker.status().workers), "the call to run")
        call.cancel()
        until(lambda: not any(one.load for one in broker.status().workers), "its end")
        done["cancelled"] += 1
    in_force(web, "pause")
    for _ in range(3):
        done[error_of(broker, "echo")] += 1
    in_force(web, "resume")
    return done


def in_force(web: httpx.Client, order: str) -> None:
    """Give an order until the broker has it: one that stopped for a moment carries it out later, as the answer says."""
    until(lambda: web.post(f"/api/pools/pool/{order}", json={}).json()["in_force"], f"{order} in force")


def error_of(broker: Client, command: str, timeout: float | None = None) -> str:
    with pytest.raises(errors.BrokerError) as caught:
        broker.call("pool", command, timeout=timeout)
    return caught.value.code


def job(web: httpx.Client) -> str:
    ident = web.post("/api/jobs", json={"pool": "pool", "command": "echo", "arguments": {"value": 1}}).json()["id"]
    state: str = until(
        lambda: (found := web.get(f"/api/jobs/{ident}").json()["state"]) not in ("queued", "running") and found,
        "the end of a job",
    )
    return state


def kill_a_worker(broker: Client) -> None:
    victim = next(one for one in broker.status().workers if one.state == "ready")
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: broker.status().pools[0].died == 1 and broker.status().pools[0].ready == 2, "another worker")


def freeze(broker: Client) -> None:
    """Stop the broker until a question to it has gone unanswered."""
    pid = broker.status().node.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(errors.BrokerUnreachable):
            broker.status(timeout=1.0)
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: broker.status().pools, "the broker to answer again")


@pytest.mark.slow
@pytest.mark.chaos
def test_every_surface_counts_what_was_done(tmp_path: Path) -> None:
    with site(tmp_path) as (made, web, broker):
        done = load(web, broker)
        kill_a_worker(broker)
        freeze(broker)
        done += load(web, broker)
        for _ in range(2):
            assert job(web) == "succeeded"
            done["ok"] += 1
        refusals = done["command_unknown"] + done["pool_paused"]
        failed = done.total() - done["ok"] - refusals
        expected = {"finished": done["ok"], "failed": failed, "refused": refusals, "died": 1}
        assert expected == {"finished": 52, "failed": 16, "refused": 8, "died": 1}, done
        # Each is asked again: a surface shows older values while the broker does not answer in time.
        surfaces: dict[str, Callable[[], Any]] = {
            "status": lambda: counted(web.get("/api/status").json()["pools"][0]),
            "pool": lambda: counted(web.get("/api/pools/pool").json()["live"] or {}),
            "shell": lambda: counted(made.shell()["pools"][0]),
            "page": lambda: on_the_page(web),
        }
        sign_in(web)
        for surface, read in surfaces.items():
            until_equal(read, expected, surface)
        until_equal(lambda: metrics(web), (dict(done), 1.0), "metrics")
        made.processes[0].terminate()  # the broker writes its last minute when it stops
        made.processes[0].wait(PATIENCE)
        assert stored(made) == expected


def metrics(web: httpx.Client) -> tuple[dict[str, int], float]:
    """Calls by code, and deaths."""
    codes: Counter[str] = Counter()
    deaths = 0.0
    answer = web.get("/api/metrics")
    for family in text_string_to_metric_families(answer.text if answer.status_code == 200 else ""):
        for sample in family.samples:
            if sample.name == "snakepit_calls_total":
                codes[sample.labels["code"]] += int(sample.value)
            if sample.name == "snakepit_worker_deaths_total":
                deaths += sample.value
    return dict(codes), deaths


def counted(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in COUNTED}


def until_equal(read: Callable[[], Any], expected: Any, surface: str) -> None:
    last: list[Any] = []

    def equal() -> bool:
        last[:] = [read()]
        return last == [expected]

    with suppress(AssertionError):
        until(equal, surface)
    assert last == [expected], surface


def sign_in(web: httpx.Client) -> None:
    web.get("/admin/login/")
    form = {"username": "chaos", "password": "chaos", "csrfmiddlewaretoken": web.cookies["csrftoken"]}
    assert web.post("/admin/login/?next=/admin/", data=form).status_code == 302


def on_the_page(web: httpx.Client) -> dict[str, int]:
    page = web.get("/pools/pool/").text
    found = re.search(r'data-figure="finished">(\d+)</dd><dd class="note">(\d+) failed, (\d+) refused', page)
    died = re.search(r"recycled, (\d+) died", page)
    assert found, page
    assert died, page
    numbers = [int(text) for text in (*found.groups(), died[1])]
    return dict(zip(COUNTED, numbers, strict=True))


def stored(made: Site) -> dict[str, int]:
    """The sum of the minutes in the database."""
    found: dict[str, int] = made.drive("periods")[0]
    return found

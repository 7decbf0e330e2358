"""The web servers and Celery pools that projects run: each works, or says once at its start what to use instead.

One site with one broker serves all of them; docs/reference/servers.md has a row for each test.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.brokers import PATIENCE, ROOT
from tests.conftest import unavailable
from tests.ports import free_port
from tests.process.acceptance.test_host_project import own_environment

SETTINGS = """
from snakepit.site.settings import *
SNAKEPIT = {
    "NODE_NAME": "node-1",
    "RUNTIME_DIR": os.environ["TMPDIR"] + "/run",
    "ADAPTERS": {"primes": "snakepit.examples.primes.Primes"},
    "POOLS": {"primes": {"adapter": "primes", "profile": "thread", "size": 1, "queue_timeout": 120.0}},
    "CELERY_APP": "snakepit.site.celery",
}
"""
# With --preload the master loads this, and calls before it forks.
CALLS_BEFORE_FORK = """
from snakepit.site.wsgi import application
from snakepit.pools.client import connect
assert connect().call("primes", "count", below=100) == 25
"""
PREPARE = """
import django
django.setup()
from datetime import timedelta
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from snakepit.pools.models import ApiKey
from snakepit.pools.models.moments import utc_now
call_command("migrate", interactive=False, verbosity=0)
user = get_user_model().objects.create_superuser("root", password="x")
scopes = ("run", "view", "operate", "jobs", "configure")
_, secret = ApiKey.create(name="key", owner=user, scopes=scopes, expires_at=utc_now() + timedelta(days=1))
client = Client()
client.force_login(user)
print(secret, client.cookies["sessionid"].value)
"""
WSGI, ASGI = "snakepit.site.wsgi:application", "snakepit.site.asgi:application"
PORT = "PORT"  # in a command: the port that the test chose
GUNICORN = ("gunicorn", "--bind", "127.0.0.1:PORT", "--workers", "1")
SERVERS = {
    "gunicorn sync": (*GUNICORN, WSGI),
    "gunicorn gthread": (*GUNICORN, "-k", "gthread", "--threads", "4", WSGI),
    "gunicorn gthread, preload": (*GUNICORN, "-k", "gthread", "--threads", "4", "--preload", "warm:application"),
    "gunicorn asgi": (*GUNICORN, "-k", "asgi", ASGI),
    "uvicorn, two workers": ("uvicorn", "--port", PORT, "--workers", "2", ASGI),
    "daphne": ("daphne", "-b", "127.0.0.1", "-p", PORT, ASGI),
    "granian asgi": ("granian", "--interface", "asgi", "--port", PORT, ASGI),
    "granian wsgi": ("granian", "--interface", "wsgi", "--port", PORT, WSGI),
}
JOB = ("submit", "primes", "count", '{"below": 100}')
CELERY = ("-m", "celery", "-A", "snakepit.site", "worker", "--loglevel=INFO", "--concurrency", "2")


@dataclass
class Site:
    directory: Path
    environment: dict[str, str]
    key: str = ""
    session: str = ""
    logs: list[Path] = field(default_factory=list)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words], cwd=self.directory, env=self.environment, capture_output=True, text=True,
            timeout=240, check=False,
        )  # fmt: skip

    def start(self, *words: str) -> tuple[subprocess.Popen[bytes], Path]:
        log = self.directory / f"log-{len(self.logs)}"
        self.logs.append(log)
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *words], cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=file, stderr=file,
            )  # fmt: skip
        return process, log

    @contextmanager
    def program(self, *words: str, ready: Callable[[Path], Any]) -> Iterator[Path]:
        """A program from the moment when it is ready to its end by SIGTERM; yields its log."""
        process, log = self.start(*words)
        try:
            until(lambda: process.poll() is not None or ready(log), log)
            assert process.poll() is None, log.read_text()
            yield log
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait(PATIENCE)


def until(question: Callable[[], Any], log: Path) -> Any:
    """Ask again and again, within bounds: other programs give no other sign."""
    end = time.monotonic() + PATIENCE
    while not (found := question()):
        assert time.monotonic() < end, log.read_text()[-5000:]
        threading.Event().wait(0.1)
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    (directory / "variant.py").write_text(SETTINGS)
    (directory / "warm.py").write_text(CALLS_BEFORE_FORK)
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as short:  # the path of a socket has to be short
        ours = {
            "HOME": short,  # gunicorn puts a socket there
            "TMPDIR": short, "PYTHONPATH": f"{directory}:{ROOT}", "SNAKEPIT_STATE_DIR": str(directory / "state"),
            "DJANGO_SETTINGS_MODULE": "variant", "SNAKEPIT_DEMO": "0", "SNAKEPIT_CELERY_URL": valkey_url,
        }  # fmt: skip
        made = Site(directory, own_environment() | ours)
        prepared = made.run("-c", PREPARE)
        assert prepared.returncode == 0, prepared.stderr
        made.key, made.session = prepared.stdout.split()
        broker = ("-m", "snakepit.pools.cli", "broker")
        with made.program(*broker, ready=lambda log: "after its start" in log.read_text()):
            yield made


@pytest.fixture(scope="module")
def celery(site: Site) -> Iterator[Path]:
    with worker(site, "threads") as log:
        yield log


@pytest.fixture
def apart(site: Site) -> Site:
    """The same site with a message transport that the Celery worker of the web servers' tests does not read."""
    url = f"{site.environment['SNAKEPIT_CELERY_URL']}?virtual_host=1"
    return Site(site.directory, site.environment | {"SNAKEPIT_CELERY_URL": url}, logs=site.logs)


def worker(site: Site, pool: str) -> contextlib.AbstractContextManager[Path]:
    return site.program(*CELERY, "--pool", pool, ready=lambda log: " ready." in log.read_text())


def need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        unavailable(f"{module} is not installed")


def doctor(site: Site) -> str:
    """The doctor's report, without its line breaks."""
    return " ".join(site.run("-m", "snakepit.pools.cli", "doctor").stdout.split())


def run_cli(site: Site, *words: str) -> str:
    done = site.run("-m", "snakepit.pools.cli", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@contextmanager
def served(site: Site, *command: str, **options: Any) -> Iterator[tuple[httpx.Client, Path]]:
    """A client of the site behind a server that listens."""
    port = str(free_port())
    words = [word.replace(PORT, port) for word in command]
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, **options) as client,
        site.program("-m", *words, ready=lambda _: listens(client)) as log,
    ):
        yield client, log


def listens(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get("/api/live").status_code == 200
    return False


def call(site: Site, client: httpx.Client) -> tuple[int, Any]:
    key = {"Authorization": f"Bearer {site.key}"}
    answer = client.post("/api/pools/primes/commands/count", headers=key, json={"below": 100})
    return answer.status_code, answer.json().get("result", answer.text)


def wrong(site: Site, client: httpx.Client, log: Path) -> Iterator[str]:
    """What does not work: a call, a stream, a job, the pages."""
    key = {"Authorization": f"Bearer {site.key}"}
    if (called := call(site, client)) != (200, 25):
        yield f"call: {called}"
    with client.stream(
        "POST", "/api/pools/primes/commands/primes?stream=true", headers=key, json={"limit": 3}
    ) as stream:
        chunks = [line for line in stream.iter_lines() if re.fullmatch(r"data: \d+", line)]
        if chunks != ["data: 2", "data: 3", "data: 5"]:
            yield f"stream: {stream.status_code} {chunks}"
    body = {"pool": "primes", "command": "count", "arguments": {"below": 100}}
    made = client.post("/api/jobs", headers=key, json=body)
    if made.status_code != 201:
        yield f"job: {made.status_code} {made.text}"
    else:
        job = f"/api/jobs/{made.json()['id']}"
        ended = until(lambda: (one := client.get(job, headers=key).json())["finished_at"] and one, log)
        if (ended["state"], ended["result"]) != ("succeeded", 25):
            yield f"job: {ended}"
    cookies = {"Cookie": f"sessionid={site.session}"}
    for page in ("/", "/pools/", "/pools/primes/", "/workers/", "/jobs/", "/playground/", "/admin/", "/api/ready"):
        end = time.monotonic() + PATIENCE
        while (answer := client.get(page, headers=cookies)).status_code == 503 and time.monotonic() < end:
            threading.Event().wait(0.1)  # the broker does not answer in time while the machine stops
        if answer.status_code != 200:
            yield f"{page}: {answer.status_code} {answer.text[:300]}"
    with client.stream("GET", "/live/stream/?topic=pools", headers=cookies) as live:
        if live.status_code == 200:
            first = next(line for line in live.iter_lines() if line.startswith("event"))
            if first != "event: region":
                yield f"live: {first}"
        elif live.status_code != 501:
            yield f"live: {live.status_code}"


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
def test_a_web_server_serves_calls_streams_jobs_and_pages(site: Site, celery: Path, name: str) -> None:
    need(SERVERS[name][0])
    with served(site, *SERVERS[name]) as (client, log):
        assert list(wrong(site, client, log)) == []
        assert "Traceback" not in log.read_text(), log.read_text()


@pytest.mark.slow
def test_runserver_serves_again_after_it_reloaded_changed_code(site: Site, celery: Path) -> None:
    with served(site, "django", "runserver", PORT) as (client, log):
        assert list(wrong(site, client, log)) == []
        time_of_change = time.time() + 2  # the reloader compares whole seconds on some file systems
        os.utime(site.directory / "variant.py", (time_of_change, time_of_change))
        until(lambda: log.read_text().count("Starting development server") == 2 and listens(client), log)
        assert call(site, client) == (200, 25)


@pytest.mark.slow
@pytest.mark.parametrize("command", [("-k", "gevent"), ("-k", "gevent", "--preload")], ids=" ".join)
def test_gunicorn_with_gevent_says_once_at_its_start_what_to_use(site: Site, command: tuple[str, ...]) -> None:
    need("gevent")
    with served(site, *GUNICORN, *command, WSGI) as (client, log):
        assert log.read_text().count("no call can run in this process: gevent or eventlet has patched") == 1
        assert "gunicorn -k gthread" in log.read_text()
        key = {"Authorization": f"Bearer {site.key}"}
        for method, path in (("POST", "pools/primes/commands/count"), ("POST", "jobs"), ("GET", "pools")):
            answer = client.request(method, f"/api/{path}", headers=key, json={})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "broker_unreachable")
            assert "gevent" in answer.json()["error"]["message"]
        ready = client.get("/api/ready")
        assert (ready.status_code, "gevent" in ready.json()["problems"][0]) == (503, True)
        if "--preload" in command:
            return  # Django's own queries fail: its connections are from before the patch
        page = client.get("/pools/primes/", headers={"Cookie": f"sessionid={site.session}"})
        assert (page.status_code, "gevent or eventlet has patched" in page.text) == (200, True)
        assert "Traceback" not in log.read_text(), log.read_text()
        assert re.search(r"greenlets: process \d+ has loaded gevent", doctor(site))


# Celery


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "solo"])  # threads: each test of a web server above runs a job
def test_a_celery_pool_runs_jobs(apart: Site, pool: str) -> None:
    with worker(apart, pool) as log:
        assert run_cli(apart, *JOB, "--wait") == "25", log.read_text()


@pytest.mark.slow
def test_a_celery_worker_on_gevent_says_once_at_its_start_that_it_takes_no_job(apart: Site) -> None:
    need("gevent")
    with worker(apart, "gevent") as log:
        assert log.read_text().count("gevent or eventlet has patched") == 1
        assert "this Celery worker cannot run jobs" in log.read_text()
        assert " runs on gevent: it takes no job of a pool" in doctor(apart)
        waits = json.loads(run_cli(apart, *JOB, "--json"))["id"]
    with worker(apart, "threads") as log:  # its message and its row are still there
        assert run_cli(apart, "job", waits, "--follow").endswith("25"), log.read_text()


@pytest.mark.slow
def test_a_celery_worker_on_gevent_for_the_queue_of_a_pool_ends_with_the_reason(apart: Site) -> None:
    need("gevent")
    process, log = apart.start(*CELERY, "--pool", "gevent", "-Q", "snakepit.primes")
    try:
        assert process.wait(PATIENCE) == 1
    finally:
        process.kill()
        process.wait()
    assert log.read_text().count("snakepit.primes: this Celery worker cannot run jobs: gevent or eventlet has") == 1


# Checks


def test_the_checks_refuse_a_patched_process(site: Site) -> None:
    need("gevent")
    lines = (
        "from gevent import monkey; monkey.patch_all(); from django.core.management import execute_from_command_line"
    )
    found = site.run("-c", f"{lines}; execute_from_command_line(['manage.py', 'check'])")
    assert (found.returncode, "(snakepit.E005) gevent or eventlet has patched" in found.stderr) == (1, True)

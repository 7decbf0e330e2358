"""The first command a stranger types, as they would see it: `snakepit up --demo`, the printed lines, Ctrl-C."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from snakepit.examples.digits import reference_model, scans
from snakepit.pools.adapters.processes.hiding import secret_names
from snakepit.pools.cli.supervisor import STOP_WITHIN
from tests.brokers import PATIENCE, ROOT, assert_nothing_left, eventually, wait_gone
from tests.demo import Demo, demo_running
from tests.ports import free_port


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with demo_running() as running:
        yield running


@pytest.fixture(scope="module")
def key(demo: Demo) -> dict[str, str]:
    return {"Authorization": demo.line(r"Authorization: (Bearer snk_[\w-]+)")[0].removeprefix("Authorization: ")}


def test_the_printed_curl_line_answers(demo: Demo) -> None:
    line = demo.line(r"^\s+(curl .*)$")[1]
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert json.loads(done.stdout)["result"] == 9592


def test_the_printed_python_line_answers(demo: Demo) -> None:
    line = demo.line(r"^\s+(\S+ -c '.*')$")[1]
    done = subprocess.run(
        line, shell=True, cwd=ROOT, env=demo.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert "9592" in done.stdout, done.stderr


def test_the_command_line_calls_streams_and_prints_the_status(demo: Demo) -> None:
    assert demo.run("call", "primes", "count", '{"below": 100000}', "--json").stdout.strip() == "9592"
    chunks = demo.run("call", "docs", "search", '{"query": "generator", "limit": 3}', "--stream", "--json").stdout
    assert len([json.loads(line) for line in chunks.splitlines()]) == 3
    status = json.loads(demo.run("status", "--json").stdout)
    assert {pool["name"] for pool in status["pools"]} == {"digits", "docs", "primes"}
    assert demo.run("call", "primes", "cuont", "{}").returncode == 1
    assert demo.run("call", "primes", "count", "{not json").returncode == 2


def test_no_process_shows_its_secrets_in_its_environment(demo: Demo) -> None:
    demo.line("Snakepit is up")
    every = (demo.process.pid, *_children(demo.process.pid))
    programs = [pid for pid in every if b"valkey" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(programs) == 5  # up, broker, celery, beat, web

    def environments() -> list[dict[str, str]]:
        shown = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in programs]
        return [dict(one.decode().split("=", 1) for one in pairs if b"=" in one) for pairs in shown]

    def is_hidden() -> bool:  # a program hides them when it has loaded the site, and Celery may still do that
        return not any(secret_names({name: value for name, value in one.items() if value}) for one in environments())

    eventually(is_hidden, "programs that hide their secrets")
    assert sum("SNAKEPIT_DEMO_TOKEN" in one for one in environments()) == 1
    assert sum("SNAKEPIT_CELERY_URL" in one for one in environments()) == 4


def test_fifty_digits_over_rest_are_the_answers_of_the_model_in_process(demo: Demo, key: dict[str, str]) -> None:
    rows, _ = scans()
    expected = [int(answer) for answer in reference_model().predict(rows[:50])]
    address = f"{demo.url}/api/pools/digits/commands/classify"

    def classify(row: Any) -> int:
        answer = httpx.post(address, json={"pixels": list(map(float, row))}, headers=key, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        result: int = answer.json()["result"]
        return result

    with ThreadPoolExecutor(4) as callers:
        assert list(callers.map(classify, rows[:50])) == expected


def test_a_stream_over_rest_brings_chunks_and_an_end(demo: Demo, key: dict[str, str]) -> None:
    address = f"{demo.url}/api/pools/docs/commands/search"
    headers = {**key, "Accept": "text/event-stream"}
    kinds = []
    with httpx.stream(
        "POST", address, json={"query": "iterator", "limit": 5}, headers=headers, timeout=PATIENCE
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        kinds = [line.partition(": ")[2] for line in answer.iter_lines() if line.startswith("event: ")]
    assert kinds.count("chunk") == 5
    assert kinds[-1] == "result"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("nope/commands/count", b"{}", 404, "pool_unknown"),
        ("primes/commands/nope", b"{}", 404, "command_unknown"),
        ("primes/commands/count", b"{}", 422, "bad_arguments"),
        ("primes/commands/count", b'{"below": "many"}', 422, "bad_arguments"),
        ("primes/commands/count", b"{below: 3}", 400, "bad_request"),
        ("primes/commands/count", b'{"below": NaN}', 400, "bad_request"),
        ("primes/commands/count", b'{"below": ' + b"[" * 500 + b"]" * 500 + b"}", 400, "bad_request"),
        ("primes/commands/count", b'{"below": "' + b"x" * 5_000_000 + b'"}', 413, "payload_too_large"),
    ],
)
def test_bad_requests_get_one_shape_of_error(
    demo: Demo, key: dict[str, str], path: str, body: bytes, status: int, code: str
) -> None:
    headers = {**key, "Content-Type": "application/json"}
    answer = httpx.post(f"{demo.url}/api/pools/{path}", content=body, headers=headers, timeout=PATIENCE)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert set(error) == {"code", "message", "outcome", "details"}


def test_metrics_count_the_calls(demo: Demo, key: dict[str, str]) -> None:
    httpx.post(f"{demo.url}/api/pools/primes/commands/count", json={"below": 10}, headers=key, timeout=PATIENCE)

    def counted() -> bool:  # a caller may have its answer before
        metrics = httpx.get(f"{demo.url}/api/metrics", headers=key, timeout=PATIENCE)
        line = r'snakepit_calls_total\{code="ok",command="count",pool="primes"\} [1-9]'
        return metrics.status_code == 200 and re.search(line, metrics.text) is not None

    eventually(counted, "the call among the metrics")


def test_a_job_runs_to_its_end(demo: Demo) -> None:
    done = demo.run("submit", "primes", "count", '{"below": 100000}', "--wait", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "9592" in done.stdout
    assert any(job["state"] == "succeeded" for job in json.loads(demo.run("jobs", "--json").stdout))


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer snk_000000000000_wrong"}])
def test_without_a_valid_key_nothing_is_called(demo: Demo, headers: dict[str, str]) -> None:
    answer = httpx.post(
        f"{demo.url}/api/pools/primes/commands/count", json={"below": 10}, headers=headers, timeout=PATIENCE
    )
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthenticated"


def test_liveness_readiness_pages_and_offline_api_docs(demo: Demo) -> None:
    assert httpx.get(f"{demo.url}/api/live", timeout=PATIENCE).status_code == 200
    demo.line(r"digits-\w+-\d+: ready")
    eventually(lambda: httpx.get(f"{demo.url}/api/ready", timeout=PATIENCE).status_code == 200, "readiness")
    docs = httpx.get(f"{demo.url}/api/docs", timeout=PATIENCE)
    assert docs.status_code == 200
    assert not re.findall(r"(?:src|href)=\"https?://", docs.text)
    login = demo.line(r"(http://\S+/demo-login/\S+)")[1]
    with httpx.Client(follow_redirects=True, timeout=PATIENCE) as browser:
        assert "digits" in browser.get(login).text
        assert browser.get(f"{demo.url}/admin/snakepit_pools/pool/").status_code == 200


def test_a_second_up_on_the_same_place_is_refused(demo: Demo) -> None:
    done = demo.run("up", "--demo", "--port", str(free_port()))
    assert done.returncode == 1
    assert "already" in done.stderr + done.stdout
    assert httpx.get(f"{demo.url}/api/live", timeout=PATIENCE).status_code == 200


def test_ctrl_c_ends_everything_and_leaves_nothing() -> None:
    """Within five seconds, for that is the sum of what each program is given before it is killed."""
    with tempfile.TemporaryDirectory(prefix="snakepit-up-", dir="/tmp") as home:
        running = Demo(Path(home))
        try:
            running.line(r"^\s+curl ")
            instance = json.loads((running.runtime / "instance").read_text())["instance"]
            children = _descendants(running.process.pid)
            assert len(children) >= 6  # valkey, web, broker, keeper, celery, workers
        finally:
            began = time.monotonic()
            code = running.interrupt()
            took = time.monotonic() - began
        assert code == 0
        assert [pid for pid in children if not wait_gone(pid, PATIENCE)] == []
        assert_nothing_left(instance)
        if took < STOP_WITHIN:  # what takes longer is killed, and leaves its socket
            assert not [path for path in Path(home).rglob("*") if path.is_socket()]


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found

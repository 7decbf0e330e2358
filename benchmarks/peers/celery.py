"""Celery with a Redis-compatible server, as its users run it for small calls: prefork, results in Redis, no retries."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from celery import Celery

from snakepit.pools.cli import transport

ROOT = Path(__file__).parents[2]
URL = os.environ.get("SNAKEPIT_BENCH_REDIS", "")

app = Celery("bench", broker=URL, backend=URL)
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=64,
    worker_send_task_events=False,
)


@app.task(name="bench.echo")
def echo(value: str) -> str:
    return value


@cache
def server() -> str:
    """The URL of one server for the lifetime of this process: Celery's client keeps its first one.

    It is the server that `snakepit up` would choose.
    """
    with ExitStack() as opened:
        state = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="snakepit-bench-")))
        (state / "valkey").mkdir()
        chosen = transport.choose({}, state, state)
        if chosen.socket is None:
            raise RuntimeError(f"no Redis-compatible server: {chosen.warning}")
        process = opened.enter_context(_quiet(chosen.command))
        opened.callback(process.terminate)
        if not transport.wait_until_ready(chosen.socket, lambda: process.poll() is None):
            raise RuntimeError("the Redis-compatible server did not start")
        atexit.register(opened.pop_all().close)
    return chosen.url


@contextmanager
def running(workers: int) -> Iterator[Celery]:
    """An app whose workers are running."""
    url = server()
    options = ("worker", "-c", str(workers), "-l", "ERROR")
    with _quiet([sys.executable, "-m", "celery", "-A", "benchmarks.peers.celery", *options], url) as celery:
        try:
            app.conf.update(broker_url=url, result_backend=url)
            echo.delay("").get(timeout=60)
            yield app
        finally:
            celery.terminate()


def _quiet(command: Sequence[str], url: str = "") -> subprocess.Popen[bytes]:
    environment = os.environ | {"SNAKEPIT_BENCH_REDIS": url}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet)


@contextmanager
def apart(workers: int) -> Iterator[None]:
    """The same in a separate process, with a new server and a cold start."""
    command = [sys.executable, "-m", "benchmarks.peers.celery", str(workers)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        try:
            process.stdout.readline()
            yield
        finally:
            process.stdin.close()


if __name__ == "__main__":
    with running(int(sys.argv[1])):
        print("answered", flush=True)
        sys.stdin.read()

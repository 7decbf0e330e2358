"""Celery with a Redis-compatible server, as its users run it for small calls: prefork, results in Redis, no retries."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from celery import Celery

from pools.cli import transport

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


@contextmanager
def running(workers: int) -> Iterator[Celery]:
    """An app whose workers answer. The server is the one that `snakepit up` would choose."""
    with tempfile.TemporaryDirectory(prefix="snakepit-bench-") as home:
        state = Path(home)
        (state / "valkey").mkdir()
        chosen = transport.choose({}, state, state)
        if chosen.socket is None:
            raise RuntimeError(f"no Redis-compatible server: {chosen.warning}")
        environment = {**os.environ, "SNAKEPIT_BENCH_REDIS": chosen.url}
        worker = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "benchmarks.peers.celery",
            "worker",
            "-c",
            str(workers),
            "-l",
            "ERROR",
        ]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(chosen.command, **quiet) as server:  # type: ignore[call-overload]
            try:
                if not transport.wait_until_ready(chosen.socket, lambda: server.poll() is None):
                    raise RuntimeError("the Redis-compatible server did not start")
                with subprocess.Popen(worker, cwd=ROOT, env=environment, **quiet) as celery:  # type: ignore[call-overload]
                    try:
                        app.conf.update(broker_url=chosen.url, result_backend=chosen.url)
                        echo.delay("").get(timeout=60)
                        yield app
                    finally:
                        celery.terminate()
            finally:
                server.terminate()


@contextmanager
def apart(workers: int) -> Iterator[None]:
    """The same in a process of its own: Celery's client keeps the first server that it had."""
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

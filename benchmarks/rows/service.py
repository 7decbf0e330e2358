"""Calls and jobs over HTTP, against a complete `snakepit up`."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from benchmarks import stack
from benchmarks.job_rate import await_end
from benchmarks.row import Contestants, Measured, Row
from benchmarks.timing import Run, rates
from benchmarks.work import SMALL

CLIENTS = 8


class Poster:
    """Posts from eight threads, each with one persistent connection."""

    def __init__(self, port: int, path: str, key: str = "") -> None:
        self._port, self._path = port, path
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def many(self, body: Any) -> Run:
        content = json.dumps(body).encode()

        def run(count: int) -> None:
            with ThreadPoolExecutor(CLIENTS) as threads:
                for _ in threads.map(self._some, [content] * CLIENTS, [max(1, count // CLIENTS)] * CLIENTS):
                    pass

        return run

    def _some(self, content: bytes, count: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            for _ in range(count):
                connection.request("POST", self._path, content, self._headers)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status >= 300:
                    raise RuntimeError(f"{self._path} answered {answer.status}: {body[:300]!r}")
        finally:
            connection.close()


def _rest(contestants: Contestants) -> Measured:
    """The peer is a view that echoes by itself; the difference is the cost of authentication, checks and the call."""
    with stack.running() as site:
        ours = Poster(site.port, "/api/pools/work/commands/echo", site.key()).many({"value": SMALL})
        bare = Poster(site.port, "/bare/").many({"value": SMALL})
        return Measured(*rates(ours, bare, 1600, 1600))


def _jobs(contestants: Contestants) -> Measured:
    """From the first submission to the last end. Ours uses REST, a database, leases and history."""
    contestants.get("celery")
    from benchmarks.peers.celery import echo as task

    def peer(count: int) -> None:
        for result in [task.delay(SMALL) for _ in range(count)]:
            result.get(timeout=60)

    with stack.running() as site:
        key = site.key()
        submit = Poster(site.port, "/api/jobs", key).many(
            {"pool": "work", "command": "echo", "arguments": {"value": SMALL}}
        )
        with httpx.Client(
            base_url=f"http://127.0.0.1:{site.port}", headers={"Authorization": f"Bearer {key}"}, timeout=60
        ) as client:

            def ours(count: int) -> None:
                submit(count)
                await_end(client)

            return Measured(*rates(ours, peer, 400, 400))


ROWS = (
    Row(
        "jobs",
        "durable jobs over REST, to the last end",
        "Celery tasks with results in Valkey",
        "jobs/s",
        _jobs,
        ("celery",),
        smaller=False,
    ),
    Row("rest", "echo of 100 bytes over REST, 8 connections", "a bare Django view", "requests/s", _rest, smaller=False),
)

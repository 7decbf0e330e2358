"""Calls and jobs over HTTP, against a complete `snakepit up`."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx

from benchmarks import stack
from benchmarks.batching import MODEL_SECONDS
from benchmarks.job_rate import await_end
from benchmarks.peers import litserve
from benchmarks.row import Contestants, Measured, Row
from benchmarks.timing import Run, rates
from benchmarks.work import SMALL

CLIENTS = 8
CALLERS = 64  # of the row of batches
EACH = {"infer": 20, "infer_alone": 3}  # requests of a caller


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


def _rest_with_key(contestants: Contestants) -> Measured:
    """The peer checks the same key in the same way; the difference is the cost of routing, checks and the call."""
    with stack.running() as site:
        key = site.key()
        ours = Poster(site.port, "/api/pools/work/commands/echo", key).many({"value": SMALL})
        bare = Poster(site.port, "/bare/key/", key).many({"value": SMALL})
        return Measured(*rates(ours, bare, 1600, 1600))


def _timed(port: int, path: str, key: str, count: int) -> tuple[float, float]:
    """Requests a second of CALLERS connections, and the p50 of one in seconds."""
    taken: list[float] = []
    content = json.dumps({"value": 1.5}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}

    def caller(_: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            for _ in range(count):
                began = time.perf_counter()
                connection.request("POST", path, content, headers)
                answer = connection.getresponse()
                if (answer.read(), answer.status)[1] != 200:
                    raise RuntimeError(f"{path} answered {answer.status}")
                taken.append(time.perf_counter() - began)
        finally:
            connection.close()

    began = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as threads:
        list(threads.map(caller, range(CALLERS)))
    return CALLERS * count / (time.perf_counter() - began), statistics.median(taken)


def _rest_batches(contestants: Contestants) -> Measured:
    """A model that takes as long for 64 inputs as for one."""
    root = "/api/pools/model/commands/"
    with stack.running() as site:
        key = site.key()
        runs = {name: partial(_timed, site.port, root + name, key) for name in ("infer", "infer_alone")}
        for run in runs.values():
            run(1)
        measured = {name: [run(EACH[name]) for _ in range(3)] for name, run in runs.items()}
    p50 = {name: statistics.median(wait for _, wait in found) * 1000 for name, found in measured.items()}
    rates = {name: statistics.median(rate for rate, _ in found) for name, found in measured.items()}
    note = f"p50 {p50['infer']:.0f} ms, without batches {p50['infer_alone']:.0f} ms"
    return Measured(rates["infer"], rates["infer_alone"], note=note)


def _litserve(contestants: Contestants) -> Measured:
    """The same model and bounds of a batch; ours also authenticates, checks and records each call."""
    theirs = partial(_timed, contestants.get("litserve"), litserve.PATH, "", EACH["infer"])
    with stack.running() as site:
        ours = partial(_timed, site.port, "/api/pools/model/commands/infer", site.key(), EACH["infer"])
        found = [[run() for run in (ours, theirs)] for _ in range(4)][1:]
    (our_rate, our_wait), (rate, wait) = (
        [statistics.median(one[at][part] for one in found) for part in (0, 1)] for at in (0, 1)
    )
    return Measured(our_rate, rate, note=f"p50 {our_wait * 1000:.0f} ms, LitServe {wait * 1000:.0f} ms")


def _tasks(count: int) -> None:
    from benchmarks.peers.celery import echo as task

    for result in [task.delay(SMALL) for _ in range(count)]:
        result.get(timeout=60)


@contextmanager
def _site() -> Iterator[tuple[stack.Stack, str, httpx.Client]]:
    """A complete site, the secret of a key, and a client that has it."""
    with stack.running() as site:
        key = site.key()
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{site.port}", headers=headers, timeout=60) as client:
            yield site, key, client


def _jobs(contestants: Contestants) -> Measured:
    """From the submission to the last end. Ours uses a database, leases and history."""
    contestants.get("celery")
    with _site() as (_, _, client):

        def ours(count: int) -> None:
            body = "\n".join([json.dumps({"value": SMALL})] * count)
            headers = {"Content-Type": "application/x-ndjson"}
            client.post("/api/jobs/batch?pool=work&command=echo", content=body, headers=headers).raise_for_status()
            await_end(client)

        return Measured(*rates(ours, _tasks, 2000, 800))


def _single_jobs(contestants: Contestants) -> Measured:
    """As `_jobs`, with a request for each job."""
    contestants.get("celery")
    with _site() as (site, key, client):
        body = {"pool": "work", "command": "echo", "arguments": {"value": SMALL}}
        submit = Poster(site.port, "/api/jobs", key).many(body)

        def ours(count: int) -> None:
            submit(count)
            await_end(client)

        return Measured(*rates(ours, _tasks, 400, 400))


ROWS = (
    Row(
        "jobs",
        "durable jobs over REST in one request, to the last end",
        "Celery tasks with results in Valkey",
        "jobs/s",
        _jobs,
        ("celery",),
        target=1.0,
        smaller=False,
    ),
    Row(
        "jobs-single",
        "durable jobs over REST, a request each, to the last end",
        "Celery tasks with results in Valkey",
        "jobs/s",
        _single_jobs,
        ("celery",),
        smaller=False,
    ),
    Row(
        "rest-batches",
        f"a model of {MODEL_SECONDS * 1000:.0f} ms over REST, {CALLERS} connections",
        "the same without batches",
        "requests/s",
        _rest_batches,
        target=3,
        smaller=False,
    ),
    Row(
        "rest-batches-litserve",
        f"a model of {MODEL_SECONDS * 1000:.0f} ms over REST in batches, {CALLERS} connections",
        "LitServe",
        "requests/s",
        _litserve,
        ("litserve",),
        smaller=False,
    ),
    Row("rest", "echo of 100 bytes over REST, 8 connections", "a bare Django view", "requests/s", _rest, smaller=False),
    Row(
        "rest-key",
        "echo of 100 bytes over REST, 8 connections",
        "a bare Django view that checks the same key",
        "requests/s",
        _rest_with_key,
        target=0.8,
        smaller=False,
    ),
)

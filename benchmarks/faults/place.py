"""A whole site under traffic: broker, Celery worker and beat, web server, message transport and database."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks import stack
from benchmarks.faults.census import Census, census, is_zombie, until
from benchmarks.faults.fault import CallCount, Findings
from benchmarks.usage import children
from snakepit.pools.broker.errors import ERRORS
from snakepit.pools.client import Client, connect

POOL = "p"
WITHIN = 90.0  # seconds for jobs to end after the last fault
OPEN = ("queued", "running")
PAUSE = 0.05  # between two requests of one caller


class Place:
    """The site, and what its callers counted."""

    def __init__(self, site: stack.Stack, http: httpx.Client, client: Client) -> None:
        self.site, self.http, self.client = site, http, client
        self.found = Findings()
        self.calls, self.rest, self.streams = CallCount(), CallCount(), CallCount()
        self.submitted: dict[str, int] = {}  # job to its number
        self.statuses: Counter[int] = Counter()  # of submissions
        self.slowest_submit = 0.0
        self.over = threading.Event()
        self._threads = [
            threading.Thread(target=work, daemon=True)
            for work in (self._call, self._call, self._stream, self._request, self._submit)
        ]

    # Traffic

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join(WITHIN)
        self.found.expect(not any(thread.is_alive() for thread in self._threads), "callers still wait")

    def _call(self) -> None:
        number = 0
        while not self.over.wait(PAUSE):
            number += 1
            self.calls.call(partial(self.client.call, POOL, "double", number=number, timeout=60.0), 2 * number)

    def _stream(self) -> None:
        while not self.over.wait(PAUSE * 4):
            self.streams.call(lambda: len(list(self.client.stream(POOL, "count", to=20, timeout=60.0))), 20)
            future = self.client.submit(POOL, "obey", seconds=30.0)
            self.over.wait(0.02)
            future.cancel()

    def _request(self) -> None:
        number = 0
        while not self.over.wait(PAUSE * 2):
            number += 1
            self.rest.call(partial(self._post, number), 2 * number)

    def _post(self, number: int) -> Any:
        reply = self.http.post(f"/api/pools/{POOL}/commands/double", json={"number": number})
        if reply.status_code == 200:
            return reply.json()["result"]
        error = reply.json()["error"]  # every error has this shape; a code that is not listed is untyped
        raise ERRORS[error["code"]](error["message"])

    def _submit(self) -> None:
        number = 0
        while not self.over.wait(PAUSE * 4):
            number += 1
            began = time.monotonic()
            body = {"pool": POOL, "command": "double", "arguments": {"number": number, "seconds": 0.01}}
            while not self.over.is_set():  # the key makes it safe to ask again
                try:
                    reply = self.http.post("/api/jobs", json=body, headers={"Idempotency-Key": f"n{number}"})
                except httpx.HTTPError:
                    self.over.wait(0.5)
                    continue
                self.statuses[reply.status_code] += 1
                expected = reply.status_code in (200, 201, 503)
                self.found.expect(expected, f"a submission got {reply.status_code}: {reply.text[:200]}")
                if reply.status_code in (200, 201):
                    self.submitted[reply.json()["id"]] = number
                    break
                self.over.wait(0.5)
            self.slowest_submit = max(self.slowest_submit, time.monotonic() - began)

    # Afterwards

    def programs(self) -> dict[str, int]:
        """The processes of the site that are meant to stay."""
        found = {name: pids[0] for name, pids in self.site.programs().items() if name != "workers" and pids}
        return {"supervisor": self.site.pid, **found}

    def censuses(self) -> dict[str, Census]:
        return {name: census(pid) for name, pid in self.programs().items()}

    def zombies(self) -> int:
        return sum(is_zombie(pid) for pid in children(self.site.pid))

    def quiet(self) -> bool:
        """Whether all workers are ready and all slots free."""
        (row,) = self.client.status(POOL).pools
        return (row.ready, row.lost, row.waiting) == (row.size, 0, 0) and row.free == row.slots

    def check(self) -> None:
        """Enter what must hold after every fault: calls, jobs, slots, the next call."""
        for name, counted in (("calls", self.calls), ("streams", self.streams), ("REST calls", self.rest)):
            counted.check(self.found, name)
            self.found.measured[name] = str(counted)
        self.check_jobs()
        self.found.expect(until(self.quiet, WITHIN), "slots or workers are missing")
        self.found.expect(self.client.call(POOL, "double", number=1, timeout=60.0) == 2, "the next call does not work")
        self.found.expect(until(lambda: self.zombies() == 0, 30.0), f"{self.zombies()} zombies")

    def check_jobs(self) -> None:
        expect = self.found.expect
        expect(until(lambda: not any(self._some(state) for state in OPEN), WITHIN), "jobs do not end")
        rows = self.jobs()
        ended = Counter(row["state"] for row in rows.values())
        lost = [job for job in self.submitted if job not in rows]
        expect(not lost, f"{len(lost)} accepted jobs are gone")
        expect(set(ended) <= {"succeeded"}, f"jobs ended as {dict(ended)}")
        wrong = [job for job in rows.values() if job["state"] == "succeeded" and not self._right(job)]
        expect(not wrong, f"{len(wrong)} jobs have another result")
        expect(len(rows) == len({row["id"] for row in rows.values()}), "a job is there twice")
        self.found.measured["jobs"] = f"{ended['succeeded']:,} of {len(self.submitted):,} accepted succeeded"
        self.found.measured["submissions"] = f"{dict(self.statuses)}, slowest {self.slowest_submit:.1f} s"

    def _right(self, row: Mapping[str, Any]) -> bool:
        number = self.submitted.get(row["id"])
        return number is None or row.get("result", 2 * number) == 2 * number

    def _some(self, state: str) -> bool:
        try:
            return bool(self.http.get(f"/api/jobs?limit=1&state={state}").json()["jobs"])
        except (httpx.HTTPError, KeyError, ValueError):
            return True  # the site is not back yet

    def jobs(self) -> dict[str, dict[str, Any]]:
        """All jobs by id."""
        found: dict[str, dict[str, Any]] = {}
        cursor = ""
        while True:
            page = self.http.get(f"/api/jobs?limit=200{cursor}").json()
            found |= {one["id"]: one for one in page["jobs"]}
            if not page["next"]:
                return found
            cursor = f"&cursor={page['next']}"


@contextmanager
def place(more: Mapping[str, str] | None = None) -> Iterator[Place]:
    """A warm site. `more`: variables of its environment, such as the database and the transport."""
    own = {"DJANGO_SETTINGS_MODULE": "benchmarks.faults.site.settings", **(more or {})}
    with stack.running(own) as site:
        headers = {"Authorization": f"Bearer {site.key()}"}
        address = str(Path(site.environment["SNAKEPIT_RUNTIME_DIR"]) / "broker.sock")
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{site.port}", headers=headers, timeout=60.0) as http,
            connect(address) as client,
        ):
            yield Place(site, http, client)

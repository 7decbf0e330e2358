"""Jobs on SQLite at a steady rate, with broker, Celery, web and readers at the same file: does anything meet a lock?

    python -m benchmarks.job_rate [RATE [SECONDS]]

Submits over REST to all of `snakepit up`, while the job list and the events are read. Prints what the submissions were
answered, how many jobs a second ended, how long after the last submission the last one did, and what a job cost in CPU.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from benchmarks import stack
from benchmarks.usage import CpuMeter

RATE, SECONDS, CALLERS, WITHIN = 50.0, 60.0, 8, 300.0
PAGES = ("/api/jobs?limit=50", "/api/events", "/api/pools")


@dataclass(frozen=True, slots=True)
class JobRate:
    submitted: dict[int, int]  # by HTTP status
    read: dict[int, int]
    states: dict[str, int]  # of the jobs in the end
    submitted_a_second: float
    ended_a_second: float
    rest: float  # seconds from the last submission to the last end
    warned: int  # lines of the logs that speak of a lock, or of a database that is away
    cpu: dict[str, float]  # milliseconds of CPU for each job, by program

    @property
    def fine(self) -> bool:
        return (
            not self.warned
            and set(self.submitted) == {201}
            and set(self.read) == {200}
            and set(self.states) == {"succeeded"}
        )


def measure(site: stack.Stack, rate: float = RATE, seconds: float = SECONDS) -> JobRate:
    headers = {"Authorization": f"Bearer {site.key()}"}
    submitted: Counter[int] = Counter()
    read: Counter[int] = Counter()
    over = threading.Event()
    with httpx.Client(base_url=f"http://127.0.0.1:{site.port}", headers=headers, timeout=60) as client:

        def submit(number: int) -> None:
            threading.Event().wait(max(0.0, began + number / rate - time.monotonic()))
            body = {"pool": "work", "command": "echo", "arguments": {"value": str(number)}}
            submitted[client.post("/api/jobs", json=body).status_code] += 1

        def look() -> None:
            while not over.wait(0.2):
                for page in PAGES:
                    read[client.get(page).status_code] += 1

        client.post(
            "/api/jobs", json={"pool": "work", "command": "echo", "arguments": {"value": ""}}
        ).raise_for_status()
        await_end(client)  # so that nothing still starts: Celery imports for seconds
        reader = threading.Thread(target=look)
        reader.start()
        meter = CpuMeter(site.programs())
        began = time.monotonic()
        with ThreadPoolExecutor(CALLERS) as callers:
            list(callers.map(submit, range(round(rate * seconds))))
        last = time.monotonic()
        await_end(client)
        ended = time.monotonic()
        count = sum(submitted.values())
        cpu = {name: round(used / 1e3, 1) for name, used in meter.per_call(count).items()}
        lines = site.log.read_text(errors="replace").splitlines()
        warned = sum("locked" in line or "database is away" in line for line in lines)
        over.set()
        reader.join()
        states = _states(client)
    rates = count / (last - began), (states["succeeded"] - 1) / (ended - began)
    return JobRate(dict(submitted), dict(read), dict(states), *rates, ended - last, warned, cpu)


def await_end(client: httpx.Client) -> None:
    end = time.monotonic() + WITHIN
    while _open(client) and time.monotonic() < end:
        threading.Event().wait(0.2)


def _open(client: httpx.Client) -> bool:
    return any(client.get(f"/api/jobs?limit=1&state={state}").json()["jobs"] for state in ("queued", "running"))


def _states(client: httpx.Client) -> Counter[str]:
    states: Counter[str] = Counter()
    cursor = ""
    while True:
        page = client.get(f"/api/jobs?limit=200{cursor}").json()
        states.update(one["state"] for one in page["jobs"])
        if not page["next"]:
            return states
        cursor = f"&cursor={page['next']}"


def main() -> int:
    asked = [float(word) for word in sys.argv[1:]]
    with stack.running() as site:
        found = measure(site, *asked)
    print(found)
    return 0 if found.fine else 1


if __name__ == "__main__":
    sys.exit(main())

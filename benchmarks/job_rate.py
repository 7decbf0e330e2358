"""Jobs on SQLite at a steady rate, with broker, Celery, web and readers on the same file: counts lock errors.

    python -m benchmarks.job_rate [RATE [SECONDS]]

Submits over REST to a complete `snakepit up`, while job list and events are read. Prints the HTTP statuses, the jobs
per second, the time from the last submission to the last end, and the CPU per job.
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
    states: dict[str, int]  # final states of the jobs
    submitted_a_second: float
    ended_a_second: float
    rest: float  # seconds from the last submission to the last end
    warned: int  # log lines about locks or an unavailable database
    cpu: dict[str, float]  # milliseconds of CPU per job, by program

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

        def sample() -> None:
            while not over.wait(0.2):
                for page in PAGES:
                    read[client.get(page).status_code] += 1

        client.post(
            "/api/jobs", json={"pool": "work", "command": "echo", "arguments": {"value": ""}}
        ).raise_for_status()
        await_end(client)  # everything has started: Celery's imports take seconds
        reader = threading.Thread(target=sample)
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
        threading.Event().wait(0.05)


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

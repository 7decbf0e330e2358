"""The broker freezes for minutes while jobs wait: waiting costs no attempt, so a job with one attempt survives it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter

from benchmarks.faults.census import until
from benchmarks.faults.fault import Fault, Findings
from benchmarks.faults.place import POOL, WITHIN, Place, place

JOBS, LATER = 200, 20  # jobs before the first freeze, and jobs that are submitted during each
SOME = 5  # jobs that end before a freeze begins
WORK = 0.2  # seconds of one job
FREEZES = 2
LONGEST_PAUSE = 60.0  # seconds between two attempts of a job whose broker is away


def submit(here: Place, count: int) -> list[str]:
    """Submit jobs that have one attempt and may not run twice unless the first run is known to be lost."""
    lines = "".join(json.dumps({"number": number, "seconds": WORK}) + "\n" for number in range(count))
    options: dict[str, str | int] = {"pool": POOL, "command": "once", "max_attempts": 1}
    headers = {"Content-Type": "application/x-ndjson"}
    reply = here.http.post("/api/jobs/batch", params=options, content=lines, headers=headers)
    here.found.expect(reply.status_code == 201, f"a submission got {reply.status_code}: {reply.text[:200]}")
    ids: list[str] = reply.json().get("ids", [])
    return ids


def open_jobs(here: Place) -> int:
    return sum(row["finished_at"] is None for row in here.jobs().values())


def freeze(here: Place, seconds: float) -> list[str]:
    """Freeze the broker while jobs wait and run, and submit more meanwhile; returns the ids of these."""
    broker, before = here.programs()["broker"], open_jobs(here)
    here.found.expect(until(lambda: open_jobs(here) <= before - SOME, WITHIN), "no job ended before a freeze")
    os.kill(broker, signal.SIGSTOP)
    try:
        began, waiting = time.monotonic(), open_jobs(here)
        here.found.expect(waiting > 0, "no job waited at a freeze")
        ids = submit(here, LATER)
        here.over.wait(max(0.0, began + seconds - time.monotonic()))
    finally:
        os.kill(broker, signal.SIGCONT)
    here.found.measured[f"open jobs at freeze {len(here.found.measured) + 1}"] = f"{waiting}, and {len(ids)} more in it"
    return ids


def frozen_broker_jobs(seconds: float) -> Findings:
    with place() as here:
        ids = submit(here, JOBS)
        for _ in range(FREEZES):
            ids += freeze(here, seconds)
        thawed = time.monotonic()
        ended = until(lambda: open_jobs(here) == 0, WITHIN + LONGEST_PAUSE)
        took = time.monotonic() - thawed
        here.found.expect(ended, "jobs do not end")
        rows = here.jobs()
        states = Counter(row["state"] for row in rows.values())
        here.found.expect(sorted(rows) == sorted(ids), f"{len(rows)} jobs of {len(ids)} accepted ones")
        here.found.expect(set(states) <= {"succeeded"}, f"jobs ended as {dict(states)}")
        here.found.measured |= {
            "freezes": f"{FREEZES} of {seconds:g} s",
            "jobs": f"{states['succeeded']} of {len(ids)} succeeded, each with max_attempts 1",
            "attempts": f"{sum(row['attempts'] for row in rows.values())}",
            "last end": f"{took:.0f} s after the last freeze",
        }
        here.found.expect(until(here.quiet, WITHIN), "slots or workers are missing")
        here.found.expect(here.client.call(POOL, "double", number=1, timeout=60.0) == 2, "the next call does not work")
    return here.found


FAULTS = (
    Fault(
        "frozen-broker-jobs",
        "SIGSTOP to the broker twice while jobs wait and run, each time for the seconds of the table",
        "No job ends as lost, also with `max_attempts` 1: waiting costs no attempt. Submissions continue.",
        ("process/acceptance/test_jobs.py::test_a_frozen_broker_costs_no_attempt",),
        frozen_broker_jobs,
        seconds=100.0,
    ),
)

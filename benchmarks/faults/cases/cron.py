"""The zone of schedules goes forward and back under two real beats, a Celery worker and a broker.

No clock is set. The zone is a file that this writes: its local time skips SHIFT seconds a few minutes from now, and
repeats as many later. PYTHONTZPATH makes all processes read it.
"""

from __future__ import annotations

import os
import struct
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

from benchmarks.faults.fault import Fault, Findings
from tests import services

SHIFT = 60  # seconds that the local time skips, and repeats
BEFORE, BETWEEN, AFTER = 2, 2, 2  # minutes until the first change, until the second one, and until the end
ZONE = "Test/Shift"


def zone_file(forward: int, back: int) -> bytes:
    """A zone whose time is UTC, and SHIFT seconds later between these moments (the format of tzfile(5))."""
    names = b"STD\0DST\0"
    counts = struct.pack(">6l", 0, 0, 0, 2, 2, len(names))
    kinds = struct.pack(">lBB", 0, 0, 0) + struct.pack(">lBB", SHIFT, 1, 4)
    return b"TZif" + bytes(16) + counts + struct.pack(">2l", forward, back) + bytes([1, 0]) + kinds + names


def cron_in_a_changed_zone(seconds: float) -> Findings:
    """Its time is that of the clock changes, whatever is given."""
    from tests.process.acceptance.test_jobs import stand

    found = Findings()
    forward = (int(time.time()) // 60 + 1 + BEFORE) * 60
    back = forward + 60 * BETWEEN
    first = datetime.fromtimestamp(forward, UTC)
    walls = [first + timedelta(minutes=number) for number in range(-1, BETWEEN + AFTER - 1)]
    fixed = {f"at-{wall:%H-%M}": f"{wall.minute} {wall.hour} * * *" for wall in walls}

    with tempfile.TemporaryDirectory(prefix="snakepit-cron-") as home, services.postgres() as database:
        file = Path(home, "zones", ZONE)
        file.parent.mkdir(parents=True)
        file.write_bytes(zone_file(forward, back))
        own = {"PYTHONTZPATH": f"{home}/zones{os.pathsep}/usr/share/zoneinfo"}
        with (
            mock.patch.dict("os.environ", own),
            services.valkey() as transport,
            stand(Path(home), transport, database) as here,
        ):
            for name, cron in (*fixed.items(), ("every", "* * * * *")):
                here.ask("schedule", name=name, command="echo", arguments={"value": name}, cron=cron, time_zone=ZONE)
            here.worker()
            for number in (1, 2):
                here.start(f"beat{number}", "beat", "--pidfile=", "--schedule", f"{home}/schedule{number}")
            found.expect(time.time() < forward - 60, "the processes started too late for the first change")
            threading.Event().wait(max(0.0, back + 60 * AFTER - time.time()))
            here.ask("stop schedules")
            runs = here.ask("runs")
            jobs = {job["id"]: job for job in here.ended([run["job"] for run in runs])}
    times = Counter(str(jobs[run["job"]]["result"]) for run in runs)
    nominal = [run["nominal"] for run in runs if jobs[run["job"]]["result"] == "every"]
    wrong = {name: times[name] for name in fixed if times[name] != 1}
    found.expect(not wrong, f"runs of a fixed time: {wrong}")
    found.expect(len(nominal) == len(set(nominal)), "a minute of * * * * * ran twice")
    span = datetime.fromisoformat(max(nominal)) - datetime.fromisoformat(min(nominal))
    found.expect(len(nominal) == span // timedelta(minutes=1) + 1, f"{len(nominal)} runs in {span}")
    found.measured |= {
        "fixed times": f"{len(fixed)}, of which {SHIFT // 60} were skipped and {SHIFT // 60} came twice; each ran once",
        "every minute": f"{len(nominal)} runs in {span}, each minute once",
    }
    return found


FAULTS = (
    Fault(
        "cron-clock-change",
        "The zone of schedules skips a minute and repeats one, under two beats (about seven minutes)",
        "Each fixed time runs once, also one that is skipped or comes twice. `* * * * *` follows real time.",
        (
            "unit/jobs/test_recurrence.py",
            "process/acceptance/test_jobs.py::test_every_job_runs_once_also_when_its_message_comes_three_times_or_two"
            "_schedulers_make_it",
        ),
        cron_in_a_changed_zone,
    ),
)

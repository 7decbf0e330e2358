"""The wall clock jumps by two hours under a broker and its workers, forward and back (libfaketime).

Jobs have a test of the suite: libfaketime breaks sleeps that end at a monotonic time, as those of beat.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

from benchmarks.faults.fault import CallCount, Fault, Findings
from benchmarks.faults.lab import POOL, callers, laboratory
from tests.services import Missing

HOURS = 7200
# Seconds for which libfaketime keeps what it has read. Without that each look at a clock, and each wait for the GIL,
# reads the file under one lock: on a busy machine the broker then stands still for seconds.
CACHED = 1
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


def clock_jumps(seconds: float) -> Findings:
    if not LIBRARIES:
        raise Missing("libfaketime is missing: apt install faketime")
    counted, made = CallCount(), 0
    with tempfile.TemporaryDirectory(prefix="snakepit-clock-") as home:
        offset, draft = Path(home, "clock"), Path(home, "draft")

        def jump(to: int) -> None:
            """Set the wall clock so far from the true time. Monotonic clocks are left alone, as by a real jump."""
            draft.write_text(f"{to:+d}")  # never read half written
            draft.replace(offset)

        jump(0)
        environment = {"LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME_TIMESTAMP_FILE": str(offset)}
        environment |= {"FAKETIME_CACHE_DURATION": str(CACHED), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        with mock.patch.dict("os.environ", environment), laboratory(2, ttl=5.0, min_lifetime=0.0) as lab:

            def call(number: int, over: threading.Event) -> None:
                while not over.is_set():
                    counted.call(lambda: lab.client.call(POOL, "double", number=number, timeout=5.0), 2 * number)

            def jumps(over: threading.Event) -> None:
                nonlocal made
                end = time.monotonic() + seconds
                while time.monotonic() < end or made % 4:
                    jump((HOURS, 0, -HOURS, 0)[made % 4])
                    made += 1
                    over.wait(2.0 * CACHED)
                    lab.client.sweep("faults", 1.0)  # the clock of age, which a site has from beat

            lab.found.expect(callers(4, call, jumps), "callers still wait")
            counted.check(lab.found, "calls")
            lab.found.expect(counted.right == counted.asked, f"calls: {counted}")
            lab.found.measured |= {"calls": str(counted), "jumps": f"{made} of two hours"}
            seen = {round((event["at"] - time.time()) / HOURS) for event in lab.node.events if event["at"]}
            lab.found.expect(len(seen) == 3 or seconds < 10, f"the broker saw only jumps by {seen} times two hours")
            gone = lab.node.told("worker.recycled", reason="ttl")
            ages = [event["data"]["lived"] for event in gone]
            lab.found.expect(bool(ages) or seconds < 10, "no worker was replaced by age")
            lab.found.expect(all(4.0 < age < 60.0 for age in ages), f"workers lived {ages} s with ttl 5")
            lab.found.measured["replaced by age"] = f"{len(gone)}"
    return lab.found


FAULTS = (
    Fault(
        "clock-jumps",
        "The wall clock of broker and workers jumps by two hours, forward and back, every two seconds",
        "No call fails. Deadlines, ages and leases follow the monotonic clock.",
        (
            "process/acceptance/test_clock.py::test_a_jump_of_two_hours_ends_no_living_attempt_and_spares_no_dead_one",
            "unit/test_beat_schedule.py",
        ),
        clock_jumps,
        seconds=30.0,
    ),
)

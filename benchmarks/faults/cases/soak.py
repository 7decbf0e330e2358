"""Everything at once for minutes: traffic, kills, freezes, recycling. What processes hold must not grow."""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from benchmarks.faults.census import Census, census, until
from benchmarks.faults.fault import Fault, Findings
from benchmarks.faults.place import POOL, Place, place
from snakepit.pools.broker.errors import BrokerUnreachable

EVERY = 5.0  # seconds between two samples, and two kills
SLOPE = 1.0  # MiB in ten minutes, after the first half
SETTLE = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    rss_mb: dict[str, float]


def slope(samples: list[Sample], name: str) -> float:
    """Least squares over the second half, in MiB for ten minutes."""
    later = [one for one in samples[len(samples) // 2 :] if name in one.rss_mb]
    if len(later) < 3:
        return 0.0
    line = statistics.linear_regression([one.at for one in later], [one.rss_mb[name] for one in later])
    return line.slope * 600.0


def disturb(here: Place, chance: random.Random) -> None:
    """Kill or freeze one worker, or have all of them replaced."""
    kind = chance.choice(("kill", "kill", "freeze", "recycle"))
    # A machine that stops for seconds must not end the soak: the order is not what it tests.
    with suppress(ProcessLookupError, IndexError, BrokerUnreachable):
        if kind == "recycle":
            here.client.recycle(POOL)
            return
        ready = [one.pid for one in here.client.status(POOL).workers if one.state == "ready"]
        os.kill(chance.choice(ready), signal.SIGKILL if kind == "kill" else signal.SIGSTOP)


@contextmanager
def caller(here: Place) -> Iterator[subprocess.Popen[bytes]]:
    """A client in a process of its own, whose memory is measured."""
    address = f"{here.site.environment['SNAKEPIT_RUNTIME_DIR']}/broker.sock"
    command = [sys.executable, "-m", "benchmarks.faults.caller", address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=os.getcwd()) as process:
        try:
            yield process
        finally:
            assert process.stdin
            process.stdin.close()  # the sign to end
            process.wait(SETTLE)


def soak(seconds: float) -> Findings:
    samples: list[Sample] = []
    chance = random.Random(1)
    with place() as here, caller(here) as client:
        here.start()
        here.over.wait(20.0)  # all have connected, imported and served
        pids = here.programs() | {"client": client.pid}
        before: dict[str, Census] = {}
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            if not before and passed >= seconds / 2:  # by then every thread of Celery's pool has run a job
                before = {name: census(pid) for name, pid in pids.items()}
            samples.append(Sample(passed, {name: census(pid).rss_mb for name, pid in pids.items()}))
            disturb(here, chance)
            threading.Event().wait(EVERY)
        after_load(here, pids, before)
        here.check()
        lost = set(here.calls.errors) - {"worker_lost", "deadline_exceeded"}
        here.found.expect(not lost, f"calls: {here.calls}")
        report(here.found, samples, before, seconds)
    return here.found


def after_load(here: Place, pids: dict[str, int], before: dict[str, Census]) -> None:
    """Stop the traffic and enter what there is more of than at half time."""
    here.stop()
    same = until(lambda: here.programs() | {"client": pids["client"]} == pids, SETTLE)
    here.found.expect(same, f"a program was restarted: {pids} are now {here.programs()}")

    def more() -> list[str]:
        return [f"{name}: {one}" for name, pid in pids.items() for one in census(pid).more_than(before[name])]

    here.found.expect(until(lambda: not more(), SETTLE), f"more at the end: {more()}")


def report(found: Findings, samples: list[Sample], before: dict[str, Census], seconds: float) -> None:
    for name in before:
        grown = slope(samples, name)
        last = samples[-1].rss_mb[name]
        found.measured[f"{name}, anonymous RSS"] = f"{last:.0f} MiB, {grown:+.2f} MiB in 10 min"
        # A shorter run has too few samples for so fine a bound.
        found.expect(grown < (SLOPE if seconds >= 590 else 20 * SLOPE), f"the {name} grows: {grown:+.1f} MiB in 10 min")


FAULTS = (
    Fault(
        "soak",
        "Calls, streams, cancels, REST and jobs for minutes, while workers are killed, frozen and recycled",
        "Memory of broker, client, web and Celery is flat. No descriptor, thread, process or zombie is left over.",
        ("process/acceptance/test_recycling.py", "process/acceptance/test_jobs_chaos.py"),
        soak,
        seconds=600.0,
    ),
)

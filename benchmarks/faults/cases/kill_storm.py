"""SIGKILL to a random worker every 200 ms while 500 callers call, in each way a worker can run."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from benchmarks.faults.fault import CallCount, Fault, Findings
from benchmarks.faults.lab import POOL, Lab, callers, laboratory
from benchmarks.rows.threads import interpreter

SIZE, CALLERS, EVERY = 8, 500, 0.2
REST = 0.005  # seconds that a call rests in its worker
SHARE = 97.0  # percent of the calls that are not idempotent


def kill_workers(lab: Lab, seconds: float, over: threading.Event) -> int:
    """Kill one ready worker in every interval; return how many."""
    chance, killed, began = random.Random(), 0, time.monotonic()
    while (now := time.monotonic()) - began < seconds:
        ready = [worker.pid for worker in lab.client.status(POOL).workers if worker.state == "ready"]
        if ready:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(ready), signal.SIGKILL)
                killed += 1
        over.wait(max(0.0, now + EVERY - time.monotonic()))
    return killed


def storm(fields: Callable[[], dict[str, Any]], seconds: float) -> Findings:
    again, single = CallCount(), CallCount()
    # 300 deaths in a minute are over the usual budget of ten for each worker: such a pool counts as a crash loop. On
    # a slow machine they also end more than a tenth of the calls, which is the usual budget of retries.
    with laboratory(SIZE, death_budget=100_000, retry_budget=1.0, **fields()) as lab:

        def call(number: int, over: threading.Event) -> None:
            counted, command = (again, "double") if number % 2 else (single, "once")
            while not over.is_set():
                arguments = {"number": number, "seconds": REST}
                counted.call(partial(lab.client.call, POOL, command, arguments, timeout=60.0), 2 * number)
                number += CALLERS

        killed = 0

        def fault(over: threading.Event) -> None:
            nonlocal killed
            killed = kill_workers(lab, seconds, over)

        lab.found.expect(callers(CALLERS, call, fault), "callers still wait")
        again.check(lab.found, "idempotent")
        single.check(lab.found, "others")
        lab.found.expect(again.right == again.asked, f"idempotent calls: {again}")
        lab.found.expect(single.share >= SHARE, f"others: {single}")
        lab.found.measured |= {"killed": f"{killed}", "idempotent": str(again), "others": str(single)}
    return lab.found


WAYS: dict[str, Callable[[], dict[str, Any]]] = {
    "spawned": dict,
    "forked": lambda: {"adapter": "preloaded", "preload": "on"},
    "threads": lambda: {"profile": "thread", "threads": 4},
    "free-threaded": lambda: {"profile": "thread", "threads": 4, "python": interpreter()},
}
TESTS = (
    "process/acceptance/test_faults.py::test_a_killed_worker_fails_its_call_typed_and_the_pool_comes_back",
    "process/acceptance/test_faults.py::test_an_idempotent_call_survives_the_death_of_its_worker",
)
FAULTS = tuple(
    Fault(
        name=f"kill-{way}",
        what=f"8 workers ({way}), SIGKILL to one every 200 ms, 500 callers",
        promise="Every error is typed. Idempotent calls all succeed. At least 97 % of the others succeed.",
        tests=TESTS,
        run=partial(storm, fields),
    )
    for way, fields in WAYS.items()
)

"""Processes that stop without an end: SIGSTOP, and connections whose other end is silent."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.faults.census import until
from benchmarks.faults.fault import CallCount, Fault, Findings
from benchmarks.faults.frames import PREFACE
from benchmarks.faults.lab import PATIENCE, POOL, callers, laboratory

LATE = 2.0  # seconds after its deadline in which a call must have ended, on a machine under load


def is_gone(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}")


def frozen_workers(seconds: float) -> Findings:
    """Freeze an idle or busy worker again and again; none is thawed."""
    counted, replaced = CallCount(), list[float]()
    with laboratory(4, cancel_grace=0.5) as lab:

        def call(number: int, over: threading.Event) -> None:
            while not over.is_set():
                arguments = {"number": number, "seconds": 0.002}
                counted.call(partial(lab.client.call, POOL, "double", arguments, timeout=8.0), 2 * number)
                over.wait(0.01)

        def freeze(over: threading.Event) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                ready = [one for one in lab.client.status(POOL).workers if one.state == "ready"]
                victim, began = random.choice(ready), time.monotonic()
                os.kill(victim.pid, signal.SIGSTOP)
                gone = until(partial(is_gone, victim.pid), PATIENCE)
                lab.found.expect(gone, f"{victim.id} is frozen and not replaced")
                replaced.append(time.monotonic() - began)

        lab.found.expect(callers(8, call, freeze), "callers still wait")
        counted.check(lab.found, "calls")
        lab.found.expect(set(counted.errors) <= {"deadline_exceeded"}, f"other errors: {counted.errors}")
        lab.found.expect(sum(counted.errors.values()) <= len(replaced), f"more calls ended than froze: {counted}")
        lab.found.measured |= {
            "calls": str(counted),
            "frozen": f"{len(replaced)}, gone after {max(replaced):.1f} s at most",
        }
    return lab.found


def frozen_broker(seconds: float) -> Findings:
    """Freeze the broker for two seconds out of four, under calls whose deadline is one second."""
    counted, slowest, lock = CallCount(), 0.0, threading.Lock()
    with laboratory(2) as lab:

        def call(number: int, over: threading.Event) -> None:
            nonlocal slowest
            while not over.is_set():
                began = time.monotonic()
                counted.call(lambda: lab.client.call(POOL, "double", number=number, timeout=1.0), 2 * number)
                with lock:
                    slowest = max(slowest, time.monotonic() - began)

        def freeze(over: threading.Event) -> None:
            for _ in range(max(1, round(seconds / 4))):
                os.kill(lab.broker, signal.SIGSTOP)
                over.wait(2.0)
                os.kill(lab.broker, signal.SIGCONT)
                over.wait(2.0)

        lab.found.expect(callers(8, call, freeze), "callers still wait")
        counted.check(lab.found, "calls")
        lab.found.expect(set(counted.errors) <= {"deadline_exceeded"}, f"other errors: {counted.errors}")
        lab.found.expect(slowest < 1.0 + LATE, f"a call with a deadline of 1 s took {slowest:.1f} s")
        lab.found.measured |= {"calls": str(counted), "slowest call": f"{slowest:.2f} s, with a deadline of 1 s"}
    return lab.found


def half_open(seconds: float) -> Findings:
    """Peers that connect and are silent, in each stage of a connection, beside calls of others."""
    counted, count = CallCount(), 200
    with laboratory(2) as lab, ExitStack() as opened:
        path = Path(lab.node.runtime / "broker.sock")

        def call(number: int, over: threading.Event) -> None:
            while not over.is_set():
                counted.call(lambda: lab.client.call(POOL, "double", number=number, timeout=60.0), 2 * number)

        def connect(over: threading.Event) -> None:
            for number in range(count):
                peer = opened.enter_context(socket.socket(socket.AF_UNIX))
                peer.settimeout(PATIENCE)
                peer.connect(str(path))
                peer.sendall((b"", PREFACE, PREFACE[:10], PREFACE + b"\x00\x10\x00\x00")[number % 4])
            over.wait(seconds)
            lab.found.measured["silent connections"] = f"{count}"
            opened.close()

        lab.found.expect(callers(4, call, connect), "callers still wait")
        counted.check(lab.found, "calls of others")
        lab.found.expect(counted.right == counted.asked, f"calls of others: {counted}")
        lab.found.measured["calls of others"] = str(counted)
    return lab.found


FAULTS = (
    Fault(
        "frozen-workers",
        "SIGSTOP to a worker, again and again, under calls with a deadline of 8 s",
        "A frozen worker is replaced. At most the call that it runs ends at its deadline; all others succeed.",
        (
            "process/acceptance/test_faults.py::test_calls_to_a_frozen_idle_worker_run_elsewhere_and_it_is_replaced"
            "_without_beat",
            "process/acceptance/test_faults.py::test_a_frozen_idle_worker_is_replaced_and_a_frozen_busy_one_ended_at"
            "_its_deadline",
        ),
        frozen_workers,
    ),
    Fault(
        "frozen-broker",
        "SIGSTOP to the broker for two seconds out of four, under calls with a deadline of 1 s",
        "Calls end within a second or so of their deadline, with a typed error. The next call works after SIGCONT.",
        (
            "process/contract/test_client.py::test_a_silent_broker_does_not_hold_a_call_beyond_its_deadline",
            "process/integration/test_frozen_broker.py::test_a_silent_broker_has_its_own_sentence",
        ),
        frozen_broker,
    ),
    Fault(
        "half-open",
        "200 peers connect to the broker, send nothing or half a greeting, and stay silent",
        "No call of others fails. What the connections took is free when they close.",
        ("process/contract/test_service.py::test_a_client_that_walks_away_from_a_call_frees_its_slot",),
        half_open,
        seconds=30.0,
    ),
)

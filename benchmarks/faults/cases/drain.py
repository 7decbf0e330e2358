"""An orderly stop under load: SIGTERM to the broker, whose successor takes over."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

from benchmarks.faults.fault import CallCount, Fault, Findings
from benchmarks.faults.lab import PATIENCE, POOL, callers, laboratory
from snakepit.pools.broker.errors import BrokerError
from tests.brokers import RunningBroker

GONE = {"shutting_down", "broker_unreachable"}


def drain(seconds: float) -> Findings:
    """Stop the broker with SIGTERM and start another one on the same directory, again and again."""
    counted, away, stops = CallCount(), list[float](), 0
    pool = {"adapter": "target", "size": 2, "queue_timeout": 60.0}
    with laboratory(2) as lab:
        home = Path(lab.node.runtime).parent

        def call(number: int, over: threading.Event) -> None:
            def run() -> int:
                while True:  # a refused call did not run: it is asked again, as a client of a deploy does
                    try:
                        arguments = {"number": number, "seconds": 0.02}
                        return int(lab.client.call(POOL, "once", arguments, timeout=60.0))
                    except BrokerError as error:
                        if error.code not in GONE or error.outcome != "not_started":
                            raise
                        over.wait(0.05)

            while not over.is_set():
                counted.call(run, 2 * number)

        def deploy(over: threading.Event) -> None:
            nonlocal stops
            end, node = time.monotonic() + seconds, lab.node
            while time.monotonic() < end:
                over.wait(2.0)
                began = time.monotonic()
                node.process.send_signal(signal.SIGTERM)
                lab.found.expect(node.process.wait(PATIENCE) == 0, f"exit code {node.process.returncode}")
                node = RunningBroker({POOL: pool}, home, 3600.0)
                node.ready(POOL)
                away.append(time.monotonic() - began)
                stops += 1
            lab.adopt(node)

        lab.found.expect(callers(8, call, deploy), "callers still wait")
        counted.check(lab.found, "calls")
        lab.found.expect(counted.right == counted.asked, f"calls: {counted}")
        lab.found.measured |= {"calls": str(counted), "stops": f"{stops}, {max(away):.1f} s without a worker at most"}
    return lab.found


FAULTS = (
    Fault(
        "drain",
        "SIGTERM to the broker under load, again and again; its successor starts on the same directory",
        "Every call that began ends with its result, and what is refused did not start. The exit code is 0.",
        (
            "process/acceptance/test_faults.py::test_sigterm_lets_running_calls_finish_and_leaves_nothing",
            "process/contract/test_client.py::test_a_call_that_meets_a_closed_connection_goes_to_the_new_broker",
        ),
        drain,
        seconds=30.0,
    ),
)

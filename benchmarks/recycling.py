"""Four workers under a steady load, recycled continuously: `python -m benchmarks.recycling [SECONDS]` (default 60).

Cases: recycling by count, by age and by a memory leak. Each alternates, in turns of 15 s, with the same load on workers
that are not recycled, so that both see the same machine. Prints for each: failed calls, time with a missing worker,
largest number of workers, replacements, and both p99. Exits with 1 if a call failed, if fewer than four workers were
ready for more than 100 ms, if there were more workers than the surge allows, or if the p99 was more than doubled.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.brokers import RunningBroker, broker

SIZE, SURGE, RATE = 4, 1, 100
MISSING = 0.1  # allowed seconds with a missing worker
SLOWER = 2.0  # allowed ratio to the p99 of workers that are not recycled
TURN = 15.0  # seconds
POOL = {"size": SIZE, "max_surge": SURGE, "min_lifetime": 0.0, "queue_timeout": 30.0}
SMALL = {"value": "x" * 98}
LEAK = {"megabytes": 5}


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    policy: dict[str, Any]  # the recycle policy
    reason: str
    command: str
    arguments: dict[str, Any]
    plain: str  # the same work, for workers that are not recycled


CASES = (
    Case("count 50", {"max_requests": 50}, "max_requests", "echo", SMALL, "echo"),
    Case("age 5 s", {"ttl": 5.0}, "ttl", "echo", SMALL, "echo"),
    Case("leak 5 MiB a call", {"memory_soft_mb": 150.0}, "memory_soft", "leaks", LEAK, "allocates"),
)


def load(node: RunningBroker, command: str, arguments: dict[str, Any], seconds: float) -> tuple[list[float], int]:
    """Make RATE calls per second at fixed times. Returns each call's duration and the number of failures."""
    taken: list[float] = []
    calls = []
    pause = threading.Event()
    began = time.perf_counter()
    for number in range(int(seconds * RATE)):
        pause.wait(max(0.0, began + number / RATE - time.perf_counter()))
        asked = time.perf_counter()
        call = node.client.submit("p", command, arguments)
        call.add_done_callback(lambda _, asked=asked: taken.append(time.perf_counter() - asked))
        calls.append(call)
    failed = sum(call.exception(timeout=60) is not None for call in calls)
    return taken, failed


def missing_and_most(events: list[dict[str, Any]]) -> tuple[float, int]:
    """The longest time in seconds with fewer than SIZE ready workers, and the largest number of workers."""
    ready, most, longest, since = 0, 0, 0.0, None
    there: set[str] = set()
    complete = False
    for event in events:
        if event["kind"] == "worker.starting":
            there.add(event["worker"])
        elif event["kind"] == "worker.started":
            ready += 1
        elif event["kind"] in ("worker.draining", "worker.died"):
            ready -= 1
            there.discard(event["worker"])  # a draining worker finishes its calls beside its replacement
        complete = complete or ready >= SIZE
        most = max(most, len(there))
        if complete and ready < SIZE and since is None:
            since = event["at"]
        elif ready >= SIZE and since is not None:
            longest, since = max(longest, event["at"] - since), None
    return longest, most


def p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[98] * 1000


@dataclass
class Measured:
    """The measurements of one case, over all its turns."""

    taken: list[float] = field(default_factory=list)
    failed: int = 0
    missing: float = 0.0
    most: int = 0
    gone: list[dict[str, Any]] = field(default_factory=list)  # recycle events with the case's reason

    def turn(
        self, policy: dict[str, Any], reason: str, command: str, arguments: dict[str, Any], seconds: float
    ) -> None:
        with broker({"p": {**POOL, **policy}}, interval=1.0) as node:
            node.ready("p", SIZE)
            taken, failed = load(node, command, arguments, seconds)
            events = list(node.events)
        missing, most = missing_and_most(events)
        self.taken += taken
        self.failed += failed
        self.missing, self.most = max(self.missing, missing), max(self.most, most)
        self.gone += [event for event in events if event["kind"] == "worker.recycled" and event["reason"] == reason]


def measure(case: Case, seconds: float) -> tuple[Measured, Measured]:
    """(recycled, not recycled), in alternating turns."""
    own, plain = Measured(), Measured()
    turns = max(1, round(seconds / TURN))
    for _ in range(turns):
        plain.turn({}, "", case.plain, case.arguments, seconds / turns)
        own.turn(case.policy, case.reason, case.command, case.arguments, seconds / turns)
    return own, plain


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    table = Table(title=f"{SIZE} workers, {RATE} calls a second, {seconds:g} s each")
    headings = "recycled by, failed, missing ms, most workers, replaced, p99 ms, p99 ms plain, ratio, problems"
    for heading in headings.split(", "):
        table.add_column(heading)
    good = True
    for case in CASES:
        own, plain = measure(case, seconds)
        ratio = p99(own.taken) / p99(plain.taken)
        good = good and bool(own.gone) and not own.failed and own.missing <= MISSING and own.most <= SIZE + SURGE
        good = good and ratio <= SLOWER
        table.add_row(
            case.name, str(own.failed), f"{own.missing * 1000:.0f}", str(own.most), str(len(own.gone)),
            f"{p99(own.taken):.1f}", f"{p99(plain.taken):.1f}", f"{ratio:.2f}",
            own.gone[-1]["message"] if own.gone else "",
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

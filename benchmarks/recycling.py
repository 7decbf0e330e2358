"""Four workers under a steady load, replaced all the time: `python -m benchmarks.recycling [SECONDS]`, 60 by default.

By count, by age and because they leak, each beside the same load on workers that are left alone, in the same run. Says
for each: failed calls, how long a worker was missing, the most workers at once, replacements, and both p99. Exits with
1 if a call failed, if fewer than four were ready for more than 100 ms, or if more than the surge were there.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.brokers import RunningBroker, broker

SIZE, SURGE, RATE = 4, 1, 100
MISSING = 0.1  # seconds that a worker may be missing
POOL = {"size": SIZE, "max_surge": SURGE, "min_lifetime": 0.0, "queue_timeout": 30.0}
SMALL = {"value": "x" * 98}
LEAK = {"megabytes": 5}
# name, what makes workers leave, its reason, the load, the same load without
CASES: tuple[tuple[str, dict[str, Any], str, str, str, dict[str, Any]], ...] = (
    ("count 50", {"max_requests": 50}, "max_requests", "echo", "echo", SMALL),
    ("age 5 s", {"ttl": 5.0}, "ttl", "echo", "echo", SMALL),
    ("leak 5 MiB a call", {"memory_soft_mb": 150.0}, "memory_soft", "leaks", "allocates", LEAK),
)


def load(node: RunningBroker, command: str, arguments: dict[str, Any], seconds: float) -> tuple[list[float], int]:
    """RATE calls a second, whatever the answers do. Returns how long each took, and how many failed."""
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
    """The longest time with fewer than SIZE ready since all were, in seconds, and the most workers at once."""
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
            there.discard(event["worker"])  # what drains serves out its calls beside its successor
        complete = complete or ready >= SIZE
        most = max(most, len(there))
        if complete and ready < SIZE and since is None:
            since = event["at"]
        elif ready >= SIZE and since is not None:
            longest, since = max(longest, event["at"] - since), None
    return longest, most


def p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[98] * 1000


def measure(policy: dict[str, Any], command: str, arguments: dict[str, Any], seconds: float) -> tuple[float, int, Any]:
    with broker({"p": {**POOL, **policy}}, interval=1.0) as node:
        node.ready("p", SIZE)
        taken, failed = load(node, command, arguments, seconds)
        return p99(taken), failed, list(node.events)


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    table = Table(title=f"{SIZE} workers, {RATE} calls a second, {seconds:g} s each")
    for heading in ("replaced by", "failed", "missing ms", "most", "replaced", "p99 ms", "left alone", "ratio", "why"):
        table.add_column(heading)
    good = True
    alone: dict[str, float] = {}
    for name, policy, reason, command, plain, arguments in CASES:
        if plain not in alone:
            alone[plain] = measure({}, plain, arguments, seconds)[0]
        own, failed, events = measure(policy, command, arguments, seconds)
        missing, most = missing_and_most(events)
        gone = [event for event in events if event["kind"] == "worker.recycled" and event["reason"] == reason]
        good = good and bool(gone) and not failed and missing <= MISSING and most <= SIZE + SURGE
        table.add_row(
            name, str(failed), f"{missing * 1000:.0f}", str(most), str(len(gone)), f"{own:.1f}", f"{alone[plain]:.1f}",
            f"{own / alone[plain]:.2f}", gone[-1]["message"] if gone else "",
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

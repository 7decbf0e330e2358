"""What each mechanism of the transport buys: `python -m benchmarks.mechanisms`.

    this process ── "rest 200" ──▶ one child for each variant: a client, a broker and two workers
                 ◀── its figures ──

Each variant switches mechanisms off by the environment (docs/explanation/transport.md). The variants and
ProcessPoolExecutor take turns in rounds, so that what else the machine does meets all of them. A figure is the median
over the rounds of its ratio to "all on" in the same round. ROUNDS=n sets how many rounds, CALLS=n how many calls a
round.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import node
from benchmarks.peers.executors import executor
from benchmarks.work import SMALL, echo
from snakepit.pools.client import Client
from snakepit.workers.transport import DIRECT_REPLY, FAST_PATH, LOOP_OWNER, SWITCHES

WORKERS = 2
ROUNDS = int(os.environ.get("ROUNDS", "20"))
CALLS = int(os.environ.get("CALLS", "300"))
IN_FLIGHT = 128  # calls at a time in the second measurement
ARGUMENTS = {"value": SMALL}
ALL_ON = "all on"
OFF = dict.fromkeys(SWITCHES, "0")


@dataclass(frozen=True, slots=True)
class Variant:
    """Variables of the client's environment, and of the broker's, which passes them on to its workers."""

    client: Mapping[str, str] = field(default_factory=dict)
    broker: Mapping[str, str] = field(default_factory=dict)


VARIANTS = {
    ALL_ON: Variant(),
    "without direct reply": Variant({DIRECT_REPLY: "0"}, {DIRECT_REPLY: "0"}),
    "without HTTP/2 fast path": Variant({FAST_PATH: "0"}, {FAST_PATH: "0"}),
    "without loop owner in the client": Variant({LOOP_OWNER: "0"}),
    "without loop owner in the workers": Variant({}, {LOOP_OWNER: "0"}),
    "without loop owner in both": Variant({LOOP_OWNER: "0"}, {LOOP_OWNER: "0"}),
    "without all of them": Variant(OFF, OFF),
}


@dataclass(frozen=True, slots=True)
class Round:
    """Microseconds of one call: at rest (the median), in flight, and CPU at rest in each process."""

    rest: float
    flight: float = 0.0
    cpu: Mapping[str, float] = field(default_factory=dict)


def at_rest(call: Callable[[], object]) -> float:
    """Return the median of calls made one after the other, in microseconds."""
    taken = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6


def in_flight(client: Client) -> float:
    """Return the microseconds that pass for each of many calls in flight."""
    count = 10 * CALLS
    began = time.perf_counter()
    for _ in client.map("work", "echo", (ARGUMENTS for _ in range(count)), window=IN_FLIGHT):
        pass
    return (time.perf_counter() - began) / count * 1e6


def serve(environment: Mapping[str, str]) -> None:
    """A child: start a broker with this environment, and measure a round for each line on standard input."""
    with node.running(WORKERS, environment) as ours:
        client, meter = ours.client, ours.meter("work", os.getpid())

        def measure() -> dict[str, Any]:
            meter.start()
            rest = at_rest(lambda: client.call("work", "echo", ARGUMENTS))
            cpu = meter.per_call(CALLS)
            return {"rest": rest, "flight": in_flight(client), "cpu": cpu}

        measure()  # until all of it is warm
        print("ready", flush=True)
        for _ in sys.stdin:
            print(json.dumps(measure()), flush=True)


class Child:
    """The process of one variant."""

    def __init__(self, variant: Variant) -> None:
        command = [sys.executable, "-m", "benchmarks.mechanisms", json.dumps(dict(variant.broker))]
        known = {name: value for name, value in os.environ.items() if name not in SWITCHES}
        self._process = subprocess.Popen(
            command, env={**known, **variant.client}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read()

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def round(self) -> Round:
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Round(**json.loads(self._read()))

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def table(rounds: Mapping[str, list[Round]], peer: list[float]) -> Table:
    found = Table(title=f"Echo of 100 bytes, one after the other or in flight; {ROUNDS} rounds of {CALLS} calls")
    headings = ("", "µs", "to all on", "to ProcessPoolExecutor", "in flight, to all on", "client", "broker", "workers")
    for heading in headings:
        found.add_column(heading, justify="right" if heading else "left")
    base = rounds[ALL_ON]
    for name, measured in rounds.items():
        to_base = [one.rest / other.rest for one, other in zip(measured, base, strict=True)]
        to_peer = [one.rest / other for one, other in zip(measured, peer, strict=True)]
        flight = [one.flight / other.flight for one, other in zip(measured, base, strict=True)]
        cpu = [statistics.mean(one.cpu[process] for one in measured) for process in ("client", "broker", "workers")]
        found.add_row(
            name,
            f"{statistics.median(one.rest for one in measured):.0f}",
            *(f"{statistics.median(ratios):.2f}" for ratios in (to_base, to_peer, flight)),
            *(f"{each:.0f}" for each in cpu),
        )
    found.caption = "client, broker, workers: µs of CPU for each call at rest"
    return found


def main() -> None:
    if sys.argv[1:]:
        serve(json.loads(sys.argv[1]))
        return
    rounds: dict[str, list[Round]] = {name: [] for name in VARIANTS}
    peer: list[float] = []
    with ExitStack() as stack:
        pool = stack.enter_context(executor(WORKERS))
        children = {name: stack.enter_context(Child(variant)) for name, variant in VARIANTS.items()}
        for turn in range(ROUNDS):
            for name in random.Random(turn).sample(list(children), len(children)):  # none always follows another one
                rounds[name].append(children[name].round())
            peer.append(at_rest(lambda: pool.submit(echo, SMALL).result()))
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table(rounds, peer))
    console.print(f"ProcessPoolExecutor: {statistics.median(peer):.0f} µs")


if __name__ == "__main__":
    main()

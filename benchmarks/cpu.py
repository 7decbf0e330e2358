"""CPU of one call in each process: `python -m benchmarks.cpu [MODE ...]`.

Wall time is unreliable on a busy machine; the CPU time of client, broker and workers shows where to optimize. Modes:
`one` (sequential), `map`, `submit`, `gather` (many in flight), `stream` (chunks of 1 kB); default: all. CALLS=n sets
the number of calls, WINDOW=n the number in flight, ROUNDS=n how often each mode runs; the row is that of the smallest
sum, since other programs on the machine only add to it. To compare two versions, run them by turns.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from benchmarks import node
from benchmarks.work import SMALL
from snakepit.pools.client import Client

WORKERS = 2
CALLS = int(os.environ.get("CALLS", "20000"))
WINDOW = int(os.environ.get("WINDOW", "512"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))
ARGUMENTS = {"value": SMALL}


def one(client: Client, count: int) -> None:
    for _ in range(count):
        client.call("work", "echo", ARGUMENTS)


def mapped(client: Client, count: int) -> None:
    for _ in client.map("work", "echo", (ARGUMENTS for _ in range(count)), window=WINDOW):
        pass


def submitted(client: Client, count: int) -> None:
    for begin in range(0, count, WINDOW):
        futures = [client.submit("work", "echo", ARGUMENTS) for _ in range(min(WINDOW, count - begin))]
        for future in futures:
            future.result()


def gathered(client: Client, count: int) -> None:
    async def main() -> None:
        for begin in range(0, count, WINDOW):
            calls = min(WINDOW, count - begin)
            await asyncio.gather(*(client.acall("work", "echo", ARGUMENTS) for _ in range(calls)))

    asyncio.run(main())


def streamed(client: Client, count: int) -> None:
    for _ in client.stream("work", "chunks", {"count": count}):
        pass


MODES: dict[str, tuple[Callable[[Client, int], None], int]] = {
    "one": (one, max(1, CALLS // 5)),
    "map": (mapped, CALLS),
    "submit": (submitted, CALLS),
    "gather": (gathered, CALLS),
    "stream": (streamed, CALLS),
}


def measure(ours: node.Node, run: Callable[[Client, int], None], count: int) -> tuple[list[float], float]:
    """Return the microseconds of CPU per call of client, broker and workers, and the seconds of all calls."""
    meter = ours.meter("work", os.getpid())
    began = time.perf_counter()
    run(ours.client, count)
    return list(meter.per_call(count).values()), time.perf_counter() - began


def main() -> None:
    names = sys.argv[1:] or list(MODES)
    if unknown := set(names) - MODES.keys():
        sys.exit(f"no mode {', '.join(sorted(unknown))}; there are: {', '.join(MODES)}")
    table = Table(title=f"CPU of a call in µs, {WORKERS} workers, {WINDOW} in flight where many")
    for heading in ("mode", "calls/s", "client", "broker", "workers", "all"):
        table.add_column(heading, justify="left" if heading == "mode" else "right")
    with node.running(WORKERS) as ours:
        for name in names:
            run, count = MODES[name]
            run(ours.client, max(1, count // 10))
            used, took = min((measure(ours, run, count) for _ in range(ROUNDS)), key=lambda round: sum(round[0]))
            table.add_row(name, f"{count / took:,.0f}", *(f"{each:.1f}" for each in used), f"{sum(used):.1f}")
    Console(width=None if sys.stdout.isatty() else 100).print(table)


if __name__ == "__main__":
    main()

"""CPU of one call at rest in two checkouts, by turns: `python -m benchmarks.lone_call CHECKOUT [ROUNDS]`.

CHECKOUT is the folder of another version, with its own `.venv`. Each version gets a broker and a client of its own, and
both make CALLS calls in turn, one after the other. Other programs on the machine then affect both alike. The table has
the median of each process's CPU for a call in microseconds, and of the difference within a turn.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
CALLS = 100  # of one turn
RESTARTS = 3  # where a process lies in memory matters too
PARTS = ("client", "broker", "workers", "wall")

# Runs in either version, so it uses only what both have. schedstat counts nanoseconds of each thread.
PROGRAM = """
import json, os, sys, time
sys.path.insert(0, os.getcwd())
from benchmarks import node
from benchmarks.work import SMALL

def used(pid):
    found = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/schedstat") as file:
                found += int(file.read().split()[0])
        except OSError:
            pass
    return found

with node.running(2) as ours:
    workers = ours.workers("work")
    def now():
        return [used(os.getpid()), used(ours.broker), sum(map(used, workers)), time.perf_counter_ns()]
    def run(count):
        for _ in range(count):
            ours.client.call("work", "echo", {"value": SMALL})
    run(300)
    print("ready", flush=True)
    for line in sys.stdin:
        before = now()
        run(int(line))
        print(json.dumps([(b - a) / int(line) / 1000 for a, b in zip(before, now())]), flush=True)
"""


class Version:
    """A checkout with its broker and client running."""

    def __init__(self, program: subprocess.Popen[str]) -> None:
        self._program = program
        self._read()

    def _read(self) -> str:
        assert self._program.stdout
        line = self._program.stdout.readline()
        if not line:
            raise SystemExit("the program of a version ended early")
        return line

    def turn(self) -> list[float]:
        """Make some calls; return the microseconds of each part for one of them."""
        assert self._program.stdin
        self._program.stdin.write(f"{CALLS}\n")
        self._program.stdin.flush()
        found: list[float] = json.loads(self._read())
        return found


@contextmanager
def running(checkout: Path) -> Iterator[Version]:
    python = checkout / ".venv" / "bin" / "python"
    with subprocess.Popen(
        [python, "-c", PROGRAM], cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        yield Version(program)
        program.communicate()


def measure(checkouts: Sequence[Path], rounds: int) -> list[list[list[float]]]:
    """The turns of each version, in the same order for both."""
    turns: list[list[list[float]]] = [[] for _ in checkouts]
    for _ in range(RESTARTS):
        with ExitStack() as stack:
            versions = [stack.enter_context(running(checkout)) for checkout in checkouts]
            for number in range(rounds):
                order = list(zip(versions, turns, strict=True))
                for version, found in order if number % 2 else reversed(order):
                    found.append(version.turn())
    return turns


def main() -> None:
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("give the folder of another version, and perhaps the number of rounds")
    other, rounds = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 40
    there, here = measure((other, ROOT), rounds)
    table = Table(title="CPU of a call at rest, and its time, in µs")
    for heading in ("", *PARTS):
        table.add_column(heading, justify="right" if heading else "left")
    differences = [[mine - its for its, mine in zip(*pair, strict=True)] for pair in zip(there, here, strict=True)]
    rows = ((other.name, there, "{:.1f}"), ("here", here, "{:.1f}"), ("more", differences, "{:+.1f}"))
    for name, turns, form in rows:
        medians = [form.format(statistics.median(part)) for part in zip(*turns, strict=True)]
        table.add_row(name, *medians)
    Console(width=None if sys.stdout.isatty() else 100).print(table)


if __name__ == "__main__":
    main()

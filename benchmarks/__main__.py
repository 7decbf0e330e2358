"""`make bench`: this project beside its peers, on the same work, in one run. Machines are noisy: read the ratios.

ROWS=name,name runs some rows, prints them and writes nothing; all of them write latest.json, docs/benchmarks.md and
its picture.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from benchmarks import plot, report
from benchmarks.peers import ray
from benchmarks.row import Result, Row
from benchmarks.rows import calls, cold, flood, idle, service, starts, threads
from benchmarks.stage import Stage

ROWS = {row.name: row for module in (calls, flood, starts, threads, idle, service, cold) for row in module.ROWS}


def chosen() -> list[Row]:
    """The rows that ROWS names, else all; Ray's where Ray is installed, that of threads where there is no GIL."""
    names = [name for name in os.environ.get("ROWS", "").split(",") if name]
    if unknown := [name for name in names if name not in ROWS]:
        sys.exit(f"no row {unknown[0]!r}; there are: {', '.join(ROWS)}")
    rows = [ROWS[name] for name in names or ROWS]
    rows = [row for row in rows if ray.INSTALLED or "ray" not in row.needs]
    return [row for row in rows if row not in threads.ROWS or threads.interpreter()]


def by_peer(rows: Sequence[Row]) -> list[Row]:
    """Rows of the same contestants one after the other, so that each contestant is on the stage once."""
    order = list(dict.fromkeys(row.needs for row in rows))
    return sorted(rows, key=lambda row: order.index(row.needs))


def run(rows: Sequence[Row], console: Console) -> list[Result]:
    results: dict[str, Result] = {}
    ordered = by_peer(rows)
    with Stage() as stage:
        for place, row in enumerate(ordered):
            stage.keep({name for later in ordered[place:] for name in later.needs if name in row.needs})
            for name in row.needs:
                stage.get(name)
            began = time.monotonic()
            results[row.name] = result = Result(row, row.measure(stage))
            console.print(f"{row.name}: {result.ratio:.3g} {result.verdict} ({time.monotonic() - began:.0f} s)")
    return [results[row.name] for row in rows]


def main() -> None:
    console = Console(width=None if sys.stdout.isatty() else 130)
    rows = chosen()
    results = run(rows, console)
    console.print(report.table(results))
    if os.environ.get("ROWS"):
        return
    report.write_latest(results)
    plot.draw(results, report.PICTURE)
    report.write_page(results, time.strftime("%Y-%m-%d"))


if __name__ == "__main__":
    main()

"""`make bench`: compares this project with its peers, on the same work, in one run. Read the ratios.

    python -m benchmarks            # all rows; with ROWS=name,name only those; others keep their results
    python -m benchmarks --page     # measures nothing; writes page and picture again

Each result is saved in latest.json and docs/explanation/benchmarks.md as soon as its row ends. The exit code is 1 if a
row failed; a missed target is not a failure.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable

from rich.console import Console

from benchmarks import plot, report, suite
from benchmarks.latest import Latest
from benchmarks.peers import litserve, ray
from benchmarks.row import Failed, Outcome, Row, Run, target
from benchmarks.rows import batches, calls, cold, data, flood, idle, round_trips, scaling, service, starts, threads

MODULES = (calls, batches, data, round_trips, flood, starts, threads, idle, service, cold, scaling)
ROWS = {row.name: row for module in MODULES for row in module.ROWS}


def missing(row: Row) -> str:
    """What this machine lacks for a row; empty: nothing."""
    if "ray" in row.needs and not ray.INSTALLED:
        return "Ray is not installed"
    if "litserve" in row.needs and not litserve.interpreter():
        return "LitServe is not installed, and LITSERVE_PYTHON names no interpreter that has it"
    if row.name == round_trips.FRAME and not round_trips.HAS_PANDAS:
        return "pandas is not installed"
    if row in threads.ROWS and not threads.interpreter():
        return "no free-threaded interpreter with the worker's requirements was found"
    return ""


def chosen(names: Iterable[str], console: Console) -> list[Row]:
    """The rows with these names, or all rows, without those that this machine cannot run."""
    wanted = [name for name in names if name]
    if unknown := [name for name in wanted if name not in ROWS]:
        sys.exit(f"unknown row {unknown[0]!r}; the rows are: {', '.join(ROWS)}")
    rows = []
    for row in [ROWS[name] for name in wanted or ROWS]:
        if lacks := missing(row):
            console.print(f"{row.name}: not run, {lacks}")
        else:
            rows.append(row)
    return rows


def main() -> int:
    if sys.argv[1:] not in ([], ["--page"]):
        sys.exit(f"{' '.join(sys.argv[1:])}: unknown argument; to select rows, set ROWS=name,name")
    console = Console(width=None if sys.stdout.isatty() else 150)
    latest = Latest(report.LATEST, ROWS.values())
    failed = 0

    def keep(outcome: Outcome, seconds: float) -> None:
        nonlocal failed
        failed += isinstance(outcome, Failed)
        latest.enter(outcome)
        report.write_page(latest)
        if isinstance(outcome, Failed):
            text = f"FAILED, {outcome.reason}"
        else:
            text = f"{outcome.ratio:.3g} {target(outcome.row)} {report.verdict(outcome)}"
        console.print(f"{outcome.row.name}: {text} ({seconds:.0f} s)", markup=False)

    try:
        if sys.argv[1:] != ["--page"]:
            rows = chosen(os.environ.get("ROWS", "").split(","), console)
            suite.run(rows, lambda: Run(time.strftime("%Y-%m-%d"), report.machine(), report.busy()), keep)
    finally:  # also after Ctrl-C. Not after each row, because matplotlib in this process would disturb the next one
        report.write_page(latest)
        plot.draw(latest.outcomes(), report.PICTURE)
    console.print(report.table(latest))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

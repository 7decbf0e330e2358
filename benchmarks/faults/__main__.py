"""`make faults`: makes faults on purpose, against real processes, and checks what is promised under each.

    python -m benchmarks.faults                            # all, each for its full time: about an hour
    python -m benchmarks.faults kill-spawned soak          # some
    python -m benchmarks.faults --seconds 20               # each for 20 seconds
    python -m benchmarks.faults --list | --page            # runs nothing

Each outcome is stored in benchmarks/faults.json and docs/explanation/reliability.md as soon as it is there. The exit
code is 1 if a promise did not hold or a fault could not run.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.faults import report
from benchmarks.faults.catalogue import FAULTS
from benchmarks.faults.fault import Fault, Findings
from benchmarks.report import busy, machine
from tests import guardian


def attempt(fault: Fault, seconds: float) -> report.Outcome:
    """Run a fault; an exception is an outcome, too."""
    began, was_busy, failed = time.monotonic(), busy(), ""
    try:
        found = fault.run(seconds)
    except Exception as error:  # the others still run
        traceback.print_exc()
        found, failed = Findings(), f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    return {
        "measured": found.measured, "broken": found.broken, "failed": failed, "seconds": seconds, "busy": was_busy,
        "took": round(time.monotonic() - began, 1), "date": time.strftime("%Y-%m-%d"), "machine": machine(),
    }  # fmt: skip


def table(names: Sequence[str]) -> Table:
    """What was found, for a terminal."""
    drawn = Table(title="Faults", show_lines=True)
    for heading in ("fault", "result", "seconds", "measured"):
        drawn.add_column(heading)
    stored = report.read()
    for name in names:
        outcome = stored.get(name)
        lines = [] if outcome is None else [f"{label}: {value}" for label, value in outcome["measured"].items()]
        lines += [] if outcome is None else [f"BROKEN: {one}" for one in (*outcome["broken"], outcome["failed"]) if one]
        seconds = "" if outcome is None else f"{outcome['seconds']:.0f}{' busy' if outcome['busy'] else ''}"
        drawn.add_row(name, report.verdict(outcome), seconds, escape("\n".join(lines)))
    return drawn


def write_page() -> None:
    report.PAGE.write_text(report.page(FAULTS, report.read()))


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("names", nargs="*", help="names of faults; none: all")
    parser.add_argument("--seconds", type=float, help="duration of each fault; default: its own")
    parser.add_argument("--list", action="store_true", help="print the names, and what is promised")
    parser.add_argument("--page", action="store_true", help="write the page from the stored outcomes")
    found = parser.parse_args(given)
    if unknown := [name for name in found.names if name not in FAULTS]:
        parser.error(f"unknown fault {unknown[0]!r}; the faults are: {', '.join(FAULTS)}")
    if found.seconds is not None and not 1 <= found.seconds <= 86400:
        parser.error(f"--seconds: {found.seconds:g} is outside 1 to 86400")
    return found


def main() -> int:
    asked, console = arguments(), Console(width=None if sys.stdout.isatty() else 150)
    if asked.list:
        for fault in FAULTS.values():
            console.print(f"{fault.name}: {fault.what}. {fault.promise}", markup=False)
        return 0
    if asked.page:
        write_page()
        return 0
    names = asked.names or list(FAULTS)
    guard = guardian.start()  # ends what is left, also if this process is killed
    good = True
    try:
        for name in names:
            outcome = attempt(FAULTS[name], asked.seconds or FAULTS[name].seconds)
            report.enter(name, outcome)
            write_page()
            good = good and report.verdict(outcome) == "holds"
            console.print(f"{name}: {report.verdict(outcome)} ({outcome['took']:.0f} s)", markup=False)
    finally:
        if guard:
            guard.close()
    console.print(table(names))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

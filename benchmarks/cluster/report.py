"""Makes the faults, prints and stores the outcome, and writes it into the documentation."""

from __future__ import annotations

import json
import time
from typing import Any

from benchmarks.cluster.network import ROOT
from benchmarks.report import busy, machine

STORED = ROOT / "benchmarks" / "cluster.json"
PAGE = ROOT / "docs" / "howto" / "several-machines.md"
BEGIN, END = "<!-- begin: python -m benchmarks.cluster -->", "<!-- end -->"


def run(callers: int, seconds: float) -> int:
    """Make the faults; return the exit code."""
    from benchmarks.cluster import faults
    from benchmarks.cluster.site import site

    was_busy = busy()
    with site(demo=False) as made:
        found = faults.run(made, callers, seconds)
        if found.broken:
            print((made.home / "programs.log").read_text(errors="replace")[-6000:])
    outcome = {
        "measured": found.measured, "broken": found.broken, "callers": callers, "seconds": seconds, "busy": was_busy,
        "date": time.strftime("%Y-%m-%d"), "machine": machine(),
    }  # fmt: skip
    STORED.write_text(json.dumps(outcome, indent=1) + "\n")
    PAGE.write_text(with_outcome(PAGE.read_text(), outcome))
    for name, value in found.measured.items():
        print(f"{name}: {value}")
    for promise in found.broken:
        print(f"BROKEN: {promise}")
    return 1 if found.broken else 0


def with_outcome(page: str, outcome: dict[str, Any]) -> str:
    """The page with the newest outcome between its marks."""
    before, rest = page.split(BEGIN)
    after = rest.split(END, 1)[1]
    busy_then = ", on a busy machine" if outcome["busy"] else ""
    head = f"{outcome['date']}, {outcome['callers']} callers for {outcome['seconds']:.0f} s{busy_then}: "
    head += f"{len(outcome['broken'])} promises did not hold." if outcome["broken"] else "all promises held."
    rows = [f"| {name} | {value} |" for name, value in outcome["measured"].items()]
    rows += [f"| **did not hold** | {promise} |" for promise in outcome["broken"]]
    table = "\n".join(["| Measured | |", "|---|---|", *rows])
    return f"{before}{BEGIN}\n{head}\n\n{table}\n{END}{after}"

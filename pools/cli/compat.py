"""`snakepit compat`: which installed libraries support threads and free-threaded Python, and advice for the others."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snakepit.pools.cli.output import PROBLEM, UsageError, json_line, report_errors, terminal
from snakepit.pools.cli.parameters import ONE_OF_MANY, AsJson
from snakepit.pools.cli.project import find_address, start_django
from snakepit.pools.cli.tables import fitted
from snakepit.pools.client import connect

if TYPE_CHECKING:
    from snakepit.pools.compat.report import Report

STYLES = {"unsafe": "bold red", "conditional": "yellow", "unknown": "cyan", "safe": "green"}
NARROW = 140  # columns for a pipe, where the terminal's width is not known


def register(app: typer.Typer) -> None:
    app.command("compat")(compat)


def compat(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="Name of a pool.")] = "",
    *,
    requirements: Annotated[
        Path | None, typer.Option("-r", "--requirements", metavar="FILE", help="A requirements file instead.")
    ] = None,
    python: Annotated[
        str | None, typer.Option(metavar="KEY", help="An interpreter instead, as a pool's `python` names it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report which libraries are safe for a pool's profile and interpreter. Exits with 1 if one is unsafe."""
    with report_errors(as_json):
        found = _report(pool, requirements, python)
    if as_json:
        typer.echo(json_line(found.plain()))
    else:
        _show(found)
    if found.unsafe:
        raise typer.Exit(PROBLEM)


def _report(pool: str, requirements: Path | None, python: str | None) -> Report:
    if (bool(pool), requirements is not None, python is not None).count(True) != 1:
        raise UsageError("name a pool, or -r FILE, or --python KEY: one of the three")
    if requirements is not None:
        from snakepit.pools.compat.assessment import AssessmentTarget
        from snakepit.pools.compat.report import report
        from snakepit.pools.compat.report import requirements as read

        try:
            packages = read(requirements)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"-r {requirements}: {error}") from error
        return report(AssessmentTarget(str(requirements)), "", packages)
    start_django()
    from snakepit.pools import conf
    from snakepit.pools.compat import ask

    if python is not None and (why := conf.find_python_problem(python)):
        raise UsageError(f"--python {why}; `snakepit pythons` lists what is here")
    if not pool:
        return ask.of_python(python or "")
    return ask.of_pool(pool, lambda name: connect(find_address()).status(name, timeout=ONE_OF_MANY))


def _show(found: Report) -> None:
    from rich.text import Text

    console = terminal(width=None if sys.stdout.isatty() else NARROW, highlight=False)
    build = " (free-threaded)" if found.free_threaded else ""
    title = f"{found.title}, {found.profile} profile" + (f", {found.python}{build}" if found.python else "")
    console.print(title, markup=False, soft_wrap=True)
    if found.note:
        console.print(found.note, style="yellow", markup=False, soft_wrap=True)
    for race in found.races:
        console.print(f"unsafe: two threads wrote `{race}` without a lock", style="bold red", markup=False)
    columns: dict[str, list[str | Text]] = {
        "library": [Text(one.name) for one in found.verdicts],
        "version": [Text(one.version or "-") for one in found.verdicts],
        "here": [Text(one.status, STYLES[one.status]) for one in found.verdicts],
        "in threads": [one.threads for one in found.verdicts],
        "GIL": [one.gil for one in found.verdicts],
        "free-threaded": [textwrap.shorten(one.wheels, 40, placeholder=" …") for one in found.verdicts],
        "why": [Text("; ".join(filter(None, (*one.reasons, one.advice)))) for one in found.verdicts],
    }
    console.print(fitted(console, columns, less=("free-threaded", "GIL", "in threads"), least=20))
    rest = f"; {found.left_out} more of Python alone are left out" if found.left_out else ""
    counted = f"{len(found.verdicts)} {'library' if len(found.verdicts) == 1 else 'libraries'}"
    console.print(f"{counted}{rest}. Sources: --json, docs/reference/compat.md.", markup=False)

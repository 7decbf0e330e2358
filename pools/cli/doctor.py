"""`snakepit doctor`: checks everything around the pools; each finding has its evidence and a fix."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snakepit.pools.broker.text import one_line
from snakepit.pools.cli.output import BOLD, DIM, GREEN, PROBLEM, RED, YELLOW, colour, json_line, report_errors
from snakepit.pools.cli.parameters import ONE_OF_MANY, AsJson
from snakepit.pools.cli.project import find_address, start_django
from snakepit.pools.client import connect

if TYPE_CHECKING:
    from snakepit.pools.diagnostics.finding import DoctorReport, Finding

MARKS = {"ok": ("ok", GREEN), "warning": ("warning", YELLOW), "problem": ("problem", RED), "skipped": ("skipped", DIM)}
WIDTH = 110


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    security: Annotated[bool, typer.Option("--security", help="Check what protects the running service.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check everything around the pools on this host; starts and changes nothing. Exits with 1 if there is a problem.

    Other nodes: run it on each of their hosts.

    With --security: settings, files, processes and keys of the running service, and what an adapter can read.
    """
    with report_errors(as_json):
        start_django()
        from snakepit.pools.diagnostics import doctor as everything
        from snakepit.pools.diagnostics import security as protection

        address = find_address()
        if security:
            report = protection.examine(lambda: connect(address).status(timeout=ONE_OF_MANY))
        else:
            report = everything.examine(lambda: connect(address).status(timeout=ONE_OF_MANY), address)
    typer.echo(json_line(plain(report)) if as_json else "\n".join(lines(report)))
    if not report.healthy:
        raise typer.Exit(PROBLEM)


def plain(report: DoctorReport) -> dict[str, Any]:
    """The report in the shape of the REST API."""
    from dataclasses import asdict

    return {**asdict(report), "healthy": report.healthy, "counts": report.counts}


def lines(report: DoctorReport) -> list[str]:
    shown = [text for finding in report.findings for text in _finding(finding)]
    counts = ", ".join(f"{count} {name}" for name, count in report.counts.items() if count)
    verdict = colour("No problems.", BOLD) if report.healthy else colour("Problems found.", BOLD)
    where = f"Host of node {one_line(report.node)}: " if report.node else ""
    return [*shown, "", f"{verdict} {where}{counts}; took {report.seconds:.1f} s, started and changed nothing."]


def _finding(finding: Finding) -> list[str]:
    word, code = MARKS[finding.status]
    name = f"{finding.check} of {finding.pool}" if finding.pool else finding.check
    width = os.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    indent = " " * 9
    head, *more = map(one_line, textwrap.wrap(f"{name}: {finding.evidence}", max(40, width - 9)) or [name])
    shown = [f"{colour(f'{word:<8}', code)} {head}", *(indent + text for text in more)]
    if finding.fix:
        shown += [indent + one_line(text) for text in textwrap.wrap(f"fix: {finding.fix}", max(40, width - 9))]
    return shown

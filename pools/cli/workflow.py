"""`snakepit workflow`: submit a workflow from a file, or show one with its jobs."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from snakepit.pools.broker import json_keys
from snakepit.pools.cli.output import Problem, UsageError, json_line, report_errors, terminal
from snakepit.pools.cli.parameters import AsJson
from snakepit.pools.cli.project import start_django, start_jobs
from snakepit.pools.cli.tables import NARROW, fitted, short_id


def register(app: typer.Typer) -> None:
    app.command()(workflow)


def workflow(
    ident: Annotated[str, typer.Argument(metavar="ID", help="The id of a workflow.")] = "",
    *,
    file: Annotated[str, typer.Option(help="Submit the workflow in this JSON file (-: stdin) and print its id.")] = "",
    owner: Annotated[str, typer.Option(help="Owner of the jobs of --file.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show a workflow and the state of its jobs, or submit one with --file."""
    with report_errors(as_json):
        if bool(ident) == bool(file):
            raise UsageError("give either the ID of a workflow, or --file")
        if file:
            _submit(file, owner, as_json)
        else:
            _show(ident, as_json)


def _submit(file: str, owner: str, as_json: bool) -> None:
    try:
        given = json_keys.loads(sys.stdin.read() if file == "-" else Path(file).read_text())
    except (OSError, ValueError, RecursionError) as error:
        why = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise UsageError(f"--file {file}: {why}") from error
    if not isinstance(given, dict) or set(given) - {"name", "jobs"}:
        raise UsageError(f"--file {file}: must have an object with `jobs`, and perhaps `name`")
    start_jobs()
    from snakepit.pools.jobs import workflow_spec, workflows
    from snakepit.pools.web.errors import all_or_nothing

    with all_or_nothing():
        row = workflows.submit(workflow_spec.read(given.get("jobs")), given.get("name", ""), owner or None)
    typer.echo(json_line({"id": str(row.pk)}) if as_json else str(row.pk))


def _show(ident: str, as_json: bool) -> None:
    try:
        key = uuid.UUID(ident)
    except ValueError:
        raise UsageError(f"{ident!r} is not the id of a workflow") from None
    start_django()
    from snakepit.pools.api.workflows import describe
    from snakepit.pools.models import JobWorkflow

    row = JobWorkflow.objects.filter(pk=key).first()
    if row is None:
        raise Problem(f"No workflow has the id {ident}")
    shown = describe(row, row.jobs.all())
    if as_json:
        typer.echo(json_line(shown))
        return
    counts = ", ".join(f"{count} {state}" for state, count in shown["states"].items())
    typer.echo(f"{shown['name'] or 'workflow'} {shown['id']}: {shown['state']} ({counts})")
    _table(shown["jobs"])


def _table(jobs: list[dict[str, Any]]) -> None:
    from rich.text import Text

    numbers = {job["id"]: str(number) for number, job in enumerate(jobs, 1)}
    console = terminal(width=None if sys.stdout.isatty() else NARROW + 60, highlight=False)
    columns: dict[str, list[str | Text]] = {
        "#": list(numbers.values()),
        "id": [short_id(console, job["id"]) for job in jobs],
        "pool": [Text(job["pool"]) for job in jobs],
        "command": [Text(job["command"]) for job in jobs],
        "state": [job["state"] for job in jobs],
        "after": [" ".join(numbers.get(one, one[-12:]) for one in job["after"]) for job in jobs],
    }
    console.print(fitted(console, columns, less=("id",)))

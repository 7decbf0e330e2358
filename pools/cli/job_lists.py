"""`snakepit jobs errors` and `snakepit jobs export`: errors in groups, and all jobs that match as a file."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.broker.text import one_line
from snakepit.pools.cli.job_selection import CommandName, Owner, PoolName, Since, State, Tag, Until, query
from snakepit.pools.cli.output import UsageError, json_line, report_errors, terminal
from snakepit.pools.cli.parameters import AsJson
from snakepit.pools.cli.project import start_django
from snakepit.pools.cli.tables import NARROW, fitted, short_id

Contents = Annotated[
    str, typer.Option(help="PostgreSQL: only those whose arguments contain this text, or JSON object.")
]


def register(group: typer.Typer) -> None:
    group.command()(errors)
    group.command()(export)


def errors(
    *, pool: PoolName = "", command: CommandName = "", owner: Owner = "", tag: Tag = "", since: Since = "",
    until: Until = "", as_json: AsJson = False,
) -> None:  # fmt: skip
    """Show the errors of the newest 2,000 jobs that ended without success, in groups."""
    with report_errors(as_json):
        start_django()
        from snakepit.pools.jobs import error_groups

        rows = query(since, until, pool=pool, command=command, owner=owner, tag=tag).rows()
        found = error_groups.groups(rows, lambda _: True)
        if as_json:
            typer.echo(
                json_line([{**asdict(one), "newest": str(one.newest), "at": one.at.isoformat()} for one in found])
            )
            return
        from rich.text import Text

        console = terminal(width=None if sys.stdout.isatty() else NARROW + 60, highlight=False)
        columns: dict[str, list[str | Text]] = {
            "jobs": [str(one.count) for one in found],
            "pool": [Text(one.pool) for one in found],
            "command": [Text(one.command) for one in found],
            "error": [Text(one_line(f"{one.code}: {one.message}")) for one in found],
            "newest": [short_id(console, str(one.newest)) for one in found],
        }
        console.print(fitted(console, columns, less=("newest",)))


def export(
    *, form: Annotated[str, typer.Option("--format", help="ndjson or csv.")] = "ndjson", state: State = "",
    pool: PoolName = "", command: CommandName = "", owner: Owner = "", tag: Tag = "", arguments: Contents = "",
    since: Since = "", until: Until = "",
) -> None:  # fmt: skip
    """Print all jobs that match, newest first, as NDJSON or CSV."""
    with report_errors(False):
        start_django()
        from snakepit.pools.api.body import dumps
        from snakepit.pools.api.jobs import out
        from snakepit.pools.jobs.export import check_format, pages

        filters = {"state": state, "pool": pool, "command": command, "owner": owner, "tag": tag}
        try:
            check_format(form)
            rows: Any = query(since, until, **filters, arguments=arguments).rows()
        except UsageError:
            raise
        except BadRequest as error:
            raise UsageError(f"--{error.message}") from error
        for text in pages(rows, out, form, dumps):
            typer.echo(text, nl=False)

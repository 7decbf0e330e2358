"""`snakepit pythons`: the interpreters of this machine for a pool's `python`, with the profile that suits each."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from snakepit.pools.cli.output import json_line, report_errors, terminal
from snakepit.pools.cli.parameters import AsJson

WIDE = 160  # columns for a pipe, where the terminal's width is not known


def register(app: typer.Typer) -> None:
    app.command("pythons")(pythons)


def pythons(as_json: AsJson = False) -> None:
    """List the interpreters for a pool's `python`, and whether they can run workers."""
    with report_errors(as_json):
        found = _find()
    if as_json:
        typer.echo(json_line({"pythons": found}))
    else:
        _show(found)


def _find() -> list[dict[str, Any]]:
    from django.core.exceptions import ImproperlyConfigured

    from snakepit.pools.adapters.interpreters.known import interpreters_of_settings
    from snakepit.pools.cli.project import choose_settings, wrong_settings

    choose_settings()
    try:
        interpreters = interpreters_of_settings().all()
    except (ImportError, ImproperlyConfigured) as error:
        raise wrong_settings(error) from error
    return [_row(one) for one in interpreters]


def _row(one: Any) -> dict[str, Any]:
    from snakepit.pools.broker.pool.recommendation import recommend

    advised = recommend(free_threaded=one.free_threaded, gil_enabled=one.gil_enabled, fit=one.fit)
    return {**one.facts(), "profile": advised.profile, "reasons": list(advised.reasons)}


def _show(found: list[dict[str, Any]]) -> None:
    from rich.text import Text

    from snakepit.pools.cli.status import new_table

    table = new_table("key", "version", "GIL", "profile", "workers", "where")
    for one in found:
        works = Text("yes", "green") if one["fit"] else Text("no", "yellow")
        gil = one["gil"] if one["version"] else ""
        where = Text(f"{one['path']} ({one['where']})")
        name = one["version"] + ("t" if one["free_threaded"] else "")
        table.add_row(Text(one["key"] or one["name"]), name, gil, one["profile"], works, where)
    for column in table.columns[:-1]:
        column.min_width = len(str(column.header))
    table.columns[-1].no_wrap, table.columns[-1].overflow = False, "fold"  # never cut a path, because users copy it
    console = terminal(
        width=None if sys.stdout.isatty() else WIDE, no_color=bool(os.environ.get("NO_COLOR")), highlight=False
    )
    console.print(table)
    for one in found:
        why = one["problem"] or "; ".join(one["lacks"])
        if why:
            console.print(f"{one['path']}: {why}", markup=False, soft_wrap=True)
        if one["install"]:
            console.print(f"  {one['install']}", markup=False, soft_wrap=True)

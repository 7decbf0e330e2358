"""The entry point: the commands and their exit codes.

Exit codes: 0 fine, 1 a problem was found, 2 the command line is wrong, 3 no broker answers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from inspect import getdoc
from types import ModuleType
from typing import Annotated

import typer

from snakepit.pools.cli import (
    adapter_template,
    broker,
    call,
    compat,
    doctor,
    dump,
    events,
    inspect,
    jobs,
    keys,
    operate,
    periodic,
    pythons,
    scaling,
    status,
    top,
    up,
    workflow,
)

app = typer.Typer(
    name="snakepit",
    help="Pools of warm Python workers for Django.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 fine, 1 a problem was found, 2 wrong usage, 3 no broker answers.",
)
PANELS: dict[str, tuple[ModuleType, ...]] = {
    "Start": (up, broker, adapter_template, pythons),
    "Call": (call,),
    "Jobs": (jobs, workflow, periodic),
    "Watch": (status, top, events),
    "Operate": (operate, keys),
    "Diagnose": (doctor, inspect, scaling, compat, dump),
}  # the help lists the commands under these titles


def reflow(text: str) -> str:
    """Join the lines of each paragraph: the help wraps them anew, and would keep the line ends of the source.

    >>> reflow("First line.\\n\\nA paragraph of\\ntwo lines.\\n\\n    code\\n    more")
    'First line.\\n\\nA paragraph of two lines.\\n\\n    code\\n    more'
    """
    parts = text.split("\n\n")
    return "\n\n".join(part if part.startswith((" ", "-")) else " ".join(part.split("\n")) for part in parts)


def _register() -> None:
    for title, modules in PANELS.items():
        commands, groups = len(app.registered_commands), len(app.registered_groups)
        for module in modules:
            module.register(app)
        for command in app.registered_commands[commands:]:
            command.rich_help_panel = title
            command.help = reflow(getdoc(command.callback) or "")
        for group in app.registered_groups[groups:]:
            group.rich_help_panel = title


_register()


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version  # 50 ms that no other command needs

        try:
            typer.echo(f"snakepit {version('django-snakepit')}")
        except PackageNotFoundError:
            typer.echo("snakepit (not installed as a package)")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Pools of warm Python workers for Django."""


def run(argv: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    try:
        app(args=list(argv), prog_name="snakepit")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        return 130
    return 0


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))

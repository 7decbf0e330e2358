"""`snakepit broker`: the daemon of a node, in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer

from pools.cli.output import errors_told
from pools.cli.project import start_django


def register(app: typer.Typer) -> None:
    app.command("broker")(broker)


def broker(
    name: Annotated[str, typer.Option(help='Name of this node [SNAKEPIT["NODE_NAME"], else the host\'s name].')] = "",
) -> None:
    """Run the broker of this node: it starts the pools' workers and gives them calls.

    SIGTERM or Ctrl-C lets running calls finish and then ends the workers; a second one ends them at once.
    """
    with errors_told():
        start_django()
    from pools.adapters.node import run_broker

    raise typer.Exit(run_broker(name))

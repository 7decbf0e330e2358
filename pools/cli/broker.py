"""`snakepit broker`: the daemon of a node, in the foreground."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from snakepit.pools.cli.output import errors_told
from snakepit.pools.cli.project import start_django


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
    _log_somewhere()
    from snakepit.pools.adapters.node import run_broker

    raise typer.Exit(run_broker(name))


def _log_somewhere() -> None:
    """Where the project's LOGGING has nothing for us (Django's own default has not), a daemon would run in silence:
    where it is, what it starts and what it decides goes to standard error then."""
    logger = logging.getLogger("snakepit")
    if logger.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

"""`snakepit broker`: the daemon of a node, in the foreground."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from snakepit.pools.broker.placement import find_name_problem
from snakepit.pools.cli.output import UsageError, report_errors
from snakepit.pools.cli.project import start_django
from snakepit.workers.process import inherited


def register(app: typer.Typer) -> None:
    app.command("broker")(broker)


def broker(
    name: Annotated[str, typer.Option(help='Name of this node [SNAKEPIT["NODE_NAME"], else the host\'s name].')] = "",
    reload: Annotated[
        bool, typer.Option("--reload", help="Replace workers when a source file in WORKER_PATH changes.")
    ] = False,
) -> None:
    """Run the broker of this node, which starts the pools' workers and dispatches calls to them.

    SIGTERM or Ctrl-C lets running calls finish and then ends the workers; a second signal kills them immediately. So
    does the end of its terminal, without nohup. SIGUSR1 writes where the event loop of the broker is.
    """
    inherited.restore()
    with report_errors():
        start_django()
        _check_settings(name)
    _log_to_stderr()
    from snakepit.pools.adapters.node import run_broker

    raise typer.Exit(run_broker(name, reload))


def _check_settings(name: str) -> None:
    """Raise UsageError, which names each wrong setting: the broker would end with a traceback."""
    from snakepit.pools.checks import find_setting_problems

    if problems := find_setting_problems():
        raise UsageError("\n".join(problems))
    if name and (why := find_name_problem(name)):
        raise UsageError(f"--name: {why}")


def _log_to_stderr() -> None:
    """Log to standard error if the project's LOGGING has no handler for us; Django's default has none.

    Without it the broker would not report its address, its starts and its decisions.
    """
    logger = logging.getLogger("snakepit")
    if logger.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

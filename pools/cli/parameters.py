"""Arguments and options that more than one command of the shell takes."""

from __future__ import annotations

from typing import Annotated

import typer

from snakepit.pools.cli.completion import complete_command, complete_pool, complete_worker

PATIENCE = 3.0  # seconds that the broker may take for an answer; a frozen one must not hold the shell
ONE_OF_MANY = (
    1.0  # the same where the broker is one of many things that a report covers, and the rest is shown without it
)
Pool = Annotated[str, typer.Argument(metavar="POOL", help="Name of the pool.", autocompletion=complete_pool)]
Command = Annotated[
    str, typer.Argument(metavar="COMMAND", help="Name of the command.", autocompletion=complete_command)
]
Arguments = Annotated[
    str, typer.Argument(metavar="JSON|@FILE|-", help="A JSON object: inline, from a file, or from standard input.")
]
Worker = Annotated[
    str,
    typer.Argument(
        metavar="WORKER", help="Id of a worker; `snakepit status` lists them.", autocompletion=complete_worker
    ),
]
Priority = Annotated[int, typer.Option(min=-100, max=100, help="Higher first.")]
NodeTimeout = Annotated[
    float, typer.Option("--timeout", min=0.1, max=60.0, help="Seconds that each node may take to answer.")
]
Reason = Annotated[str, typer.Option(help="Why; kept with the event.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON, errors too.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

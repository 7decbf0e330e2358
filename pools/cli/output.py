"""Prints results and errors, and maps errors to exit codes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from snakepit.pools.broker.errors import (
    NOT_STARTED,
    BadRequest,
    BrokerError,
    BrokerUnreachable,
    DatabaseUnavailable,
)
from snakepit.pools.broker.status import as_json
from snakepit.pools.broker.text import many_lines

if TYPE_CHECKING:
    from rich.console import Console

PROBLEM, USAGE, UNREACHABLE = 1, 2, 3
IN_THE_MESSAGE = {  # details that repeat the message, which a person reads once
    "adapter_error": ("args",), "bad_arguments": ("arguments",), "command_unknown": ("command",),
    "node_unknown": ("node",), "pool_unknown": ("pool",),
}  # fmt: skip
LISTED_BY = {"pool_unknown": "status", "worker_unknown": "status", "periodic_unknown": "periodic list"}  # commands
RED, YELLOW, GREEN, BOLD, DIM, PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[1m", "\x1b[2m", "\x1b[0m"


class Problem(Exception):
    """A problem outside of any call; the message has what to do."""


class UsageError(BadRequest):
    """The command line is wrong."""


def terminal(**options: Any) -> Console:
    """A console of rich that shows control characters in text from outside as escape sequences."""
    from rich.console import Console
    from rich.segment import Segment

    class Terminal(Console):
        def render(self, *args: Any, **more: Any) -> Iterator[Segment]:  # also for the cells of a table
            for text, style, control in super().render(*args, **more):
                yield Segment(text if control else many_lines(text), style, control)

    return Terminal(**options)


def json_line(value: Any) -> str:
    """One line of JSON; bytes as `{"$bytes": base64}`, as in the API."""
    return json.dumps(as_json(value), ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def print_value(value: Any, *, line: bool = False) -> None:
    """Print a result: text and bytes unchanged, everything else as JSON."""
    if isinstance(value, bytes):
        if sys.stdout.isatty():
            typer.echo(f"{len(value)} bytes; send them to a file, or use --json")
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(value)
            sys.stdout.buffer.flush()
    elif isinstance(value, str):
        typer.echo(value)
    else:
        typer.echo(json.dumps(value, ensure_ascii=False, default=_plain, indent=None if line else 2))


def colour(text: str, code: str, *, stream: Any = None) -> str:
    """Coloured on a terminal: not in a pipe, and not if NO_COLOR is set."""
    target = stream or sys.stdout
    return f"{code}{text}{PLAIN}" if target.isatty() and not os.environ.get("NO_COLOR") else text


@contextlib.contextmanager
def report_errors(as_json: bool = False) -> Iterator[None]:
    """Turn an error of the closed list into its message and its exit code."""
    try:
        yield
    except Problem as error:
        typer.echo(f"{colour('error', RED, stream=sys.stderr)}: {many_lines(error)}", err=True)
        raise typer.Exit(PROBLEM) from error
    except Exception as error:
        told = error if isinstance(error, BrokerError) else _of_the_database(error)
        if told is None:
            raise
        if as_json:
            typer.echo(json_line({"error": shape(told)}))
        else:
            _explain(told)
        raise typer.Exit(exit_code(told)) from error


def _of_the_database(error: Exception) -> BrokerError | None:
    """What a person can do about an error of the database; None: it is another error."""
    if "django.db.utils" not in sys.modules:  # Django is not imported for it
        return None
    from django.db import Error, ProgrammingError

    from snakepit.pools.web.errors import FULL, database_is_away, database_is_full

    why = next(iter(str(error).splitlines()), "")
    if isinstance(error, Error) and ("no such" in why or (isinstance(error, ProgrammingError) and "exist" in why)):
        message = f"The database lacks a table or a column: {why}. Run manage.py migrate."
        return DatabaseUnavailable(message, outcome=NOT_STARTED)
    if isinstance(error, Error) and database_is_full(error):
        return DatabaseUnavailable(FULL)
    if database_is_away(error):
        return DatabaseUnavailable(f"The database does not answer: {why}. Check it with: snakepit doctor")
    return None


def shape(error: BrokerError) -> dict[str, Any]:
    """An error in the shape of the REST API."""
    return {"code": error.code, "message": error.message, "outcome": error.outcome, "details": error.details}


def exit_code(error: BrokerError) -> int:
    if isinstance(error, UsageError):
        return USAGE
    return UNREACHABLE if isinstance(error, BrokerUnreachable) else PROBLEM


def _explain(error: BrokerError) -> None:
    head = colour("error", RED, stream=sys.stderr)
    typer.echo(f"{head}: {error.code}: {many_lines(error.message)}", err=True)
    details = dict(error.details)
    traceback = details.pop("traceback", "")
    for name in IN_THE_MESSAGE.get(error.code, ()):
        details.pop(name, None)
    for name, value in details.items():
        typer.echo(f"  {name}: {many_lines(value) if isinstance(value, str) else json_line(value)}", err=True)
    if error.code in LISTED_BY and "Known are" not in error.message:
        typer.echo(f"  see: snakepit {LISTED_BY[error.code]}", err=True)
    if error.retry_after:
        typer.echo(f"  retry after: {error.retry_after:g} s", err=True)
    if traceback:
        typer.echo(f"\nIn the worker:\n{many_lines(traceback).rstrip()}", err=True)

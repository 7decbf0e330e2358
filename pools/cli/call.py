"""`snakepit call`: run one command of a pool and print its result, progress and log."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from snakepit.pools.broker import json_keys
from snakepit.pools.cli.output import UsageError, json_line, print_value, report_errors, terminal
from snakepit.pools.cli.parameters import Arguments, AsJson, Command, Pool, Priority
from snakepit.pools.cli.routed import open_stream
from snakepit.pools.client import Answer, Chunk, Log, Progress
from snakepit.pools.client.arguments import Json, Options, encode
from snakepit.pools.client.streams import WINDOW


def register(app: typer.Typer) -> None:
    app.command("call")(call)


def call(
    pool: Pool,
    command: Command,
    arguments: Arguments = "{}",
    *,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds until the result must have arrived.")] = None,
    priority: Priority = 0,
    affinity: Annotated[
        str, typer.Option(help="A key: calls with the same one go to the same node and worker, where it is free.")
    ] = "",
    stream: Annotated[
        bool, typer.Option("--stream", help="Print each chunk when it arrives, one for each line.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run one command of a pool and print its result.

    A call that the broker of this host does not take goes to another node, as those of connect() do. With
    SNAKEPIT_ADDRESS it goes to that broker alone.

    Progress and log lines go to standard error. The chunks of a stream are collected, unless --stream is given.
    """
    with report_errors(as_json):
        values = read_arguments(arguments)
        options = Options(timeout, priority, affinity, WINDOW if stream else 0)
        message = encode(pool, command, values, {}, options)
        with open_stream(message) as events, _progress_on_stderr() as show:
            for event in events:
                if isinstance(event, Progress | Log):
                    show(event)
                elif isinstance(event, Chunk):
                    _print(event.value, as_json, line=True)
                elif not stream or (event.value is not None and not events.chunks):
                    _print(event.value, as_json, line=stream)


def read_arguments(text: str) -> Json:
    """The JSON object of an argument: inline, from a file, or from standard input.

    >>> read_arguments('{"below": 100}')
    {'below': 100}
    """
    source = "the arguments"
    try:
        if text == "-":
            source, text = "standard input", sys.stdin.read()
        elif text.startswith("@"):
            source = text[1:]  # before the read, whose error names it
            text = Path(source).read_text()
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{source}: must be UTF-8: {error}") from error
    return _object(source, text)


def read_lines(path: str) -> list[Json]:
    """The JSON objects of a file, one on each line; `-`: of standard input."""
    source = "standard input" if path == "-" else path
    try:
        lines = (sys.stdin.read() if path == "-" else Path(path).read_text()).split("\n")
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{source}: must be UTF-8: {error}") from error
    while lines and not lines[-1].strip():
        del lines[-1]
    if not lines:
        raise UsageError(f"{source} is empty: each line must be a JSON object of arguments")
    return [_object(f"{source}: line {number}", line) for number, line in enumerate(lines, 1)]


def _object(place: str, text: str) -> Json:
    try:
        values = json_keys.loads(text)
    except json_keys.RepeatedKey as error:
        raise UsageError(f"{place}: {error}; remove one of them") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: not JSON: {error}; write an object, such as '{{\"below\": 100}}'") from error
    if not isinstance(values, dict):
        raise UsageError(f"{place}: must be a JSON object, such as '{{\"below\": 100}}', not {text.strip()[:40]}")
    return Json(values)


def _print(value: Any, as_json: bool, *, line: bool) -> None:
    if as_json:
        typer.echo(json_line(value))
    else:
        print_value(value, line=line)
    sys.stdout.flush()  # a reader at the other end of a pipe needs each chunk when it comes


@contextlib.contextmanager
def _progress_on_stderr() -> Iterator[Any]:
    """Progress as a bar on a terminal, as lines otherwise. The bar comes with the first progress, not before."""
    if not sys.stderr.isatty():
        yield lambda event: typer.echo(_line(event), err=True)
        return
    from rich.progress import Progress as Bar

    with Bar(console=terminal(stderr=True, no_color=bool(os.environ.get("NO_COLOR"))), transient=True) as bar:
        task = None

        def show(event: Progress | Log) -> None:
            nonlocal task
            if isinstance(event, Log):
                bar.console.print(event.message, markup=False, highlight=False)
                return
            if task is None:
                task = bar.add_task("", total=1.0)
            bar.update(task, completed=event.fraction, description=event.message.replace("[", r"\["))

        yield show


def _line(event: Progress | Log) -> str:
    return event.message if isinstance(event, Log) else f"{event.fraction:4.0%} {event.message}".rstrip()


__all__ = ["Answer", "call", "read_arguments", "register"]

"""Values that the shell completes: pools, commands, workers and jobs. No answer in time means no suggestion."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import typer  # typer evaluates the annotations of a completer

PATIENCE = 0.5  # seconds: a key press must not hang
NEWEST_JOBS = 50


def complete_pool(incomplete: str) -> list[str]:
    found = _ask("status", ())
    return _starting(incomplete, (pool.name for pool in found.pools)) if found else []


def complete_command(ctx: typer.Context, incomplete: str) -> list[str]:
    pool = ctx.params.get("pool") or ""
    return _starting(incomplete, (one.name for one in _ask("commands", (pool,)) or ()))


def complete_worker(incomplete: str) -> list[str]:
    found = _ask("status", ())
    return _starting(incomplete, (worker.id for worker in found.workers)) if found else []


def complete_job(incomplete: str) -> list[str]:
    with contextlib.suppress(Exception):
        from snakepit.pools.cli.project import start_django

        start_django()
        from snakepit.pools.models import Job

        newest = Job.objects.order_by("-pk").values_list("pk", flat=True)[:NEWEST_JOBS]
        return _starting(incomplete, map(str, newest))
    return []


def _ask(question: str, arguments: tuple[Any, ...]) -> Any:
    """An answer of the broker; None if there is none. A completion must print nothing else, so it raises nothing."""
    with contextlib.suppress(Exception):
        from snakepit.pools.cli.project import find_address
        from snakepit.pools.client import connect

        client = connect(find_address(), connect_timeout=PATIENCE)
        return getattr(client, question)(*arguments, timeout=PATIENCE)
    return None


def _starting(incomplete: str, values: Iterable[str]) -> list[str]:
    return [value for value in values if value.startswith(incomplete)]

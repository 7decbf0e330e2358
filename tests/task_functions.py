"""Tasks for the tests of the task backend. Import it only where the settings have TASKS."""

from __future__ import annotations

from typing import Any

from snakepit.pools.django_tasks import api

task = __import__(api.PACKAGE, fromlist=["task"]).task


@task
def add(first: int, second: int = 1) -> int:
    return first + second


@task(takes_context=True, priority=7)
def attempt(context: Any) -> int:
    number: int = context.attempt
    return number


@task
async def later(value: Any) -> Any:
    return value


@task
def fails() -> None:
    raise KeyError("region")


def plain() -> None:
    """No task."""

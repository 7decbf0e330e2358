"""What follows the end of jobs: steps that run in the transaction that writes the ends, so that none is lost.

A module that adds a step imports this one and appends to `steps`. `ends.write` runs them.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import InterfaceError, OperationalError, close_old_connections, connections

from snakepit.pools.models import Job, schema

logger = logging.getLogger("snakepit.jobs")


@dataclass(frozen=True, slots=True)
class Ended:
    """A job whose end was just written: the row as it was before, its new state and its error."""

    job: Job
    state: str
    error: Mapping[str, Any] | None


Announcement = Callable[[], None]  # runs after the write; it must not raise
Step = Callable[[Sequence[Ended]], Iterable[Announcement]]

steps: list[Step] = []


def apply(ended: Sequence[Ended]) -> list[Announcement]:
    """Run the steps for jobs whose ends were written in this transaction; returns what to announce after it."""
    return [announcement for step in steps for announcement in step(ended)] if ended else []


_thread = threading.local()


def announce(announcements: Iterable[Announcement]) -> None:
    """Run them in order. In a test, one may run a job, whose end announces the next: a chain is no recursion."""
    waiting: deque[Announcement] | None = getattr(_thread, "waiting", None)
    if waiting is not None:
        waiting.extend(announcements)
        return
    _thread.waiting = waiting = deque(announcements)
    try:
        while waiting:
            _run(waiting.popleft())
    finally:
        _thread.waiting = None


def _run(announcement: Announcement) -> None:
    """Run it, once more on a new connection if the first is lost. The ends are committed: an error changes nothing."""
    try:
        try:
            announcement()
        except (OperationalError, InterfaceError):
            if connections[schema.alias()].in_atomic_block:  # the caller's transaction needs its connection
                raise
            close_old_connections()
            announcement()
    except (OperationalError, InterfaceError) as error:
        logger.error("the database is away: a signal of a job that has ended is not sent: %s", error)

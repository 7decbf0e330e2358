"""What a batch runner takes its jobs from."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from snakepit.pools.jobs import calls
from snakepit.pools.models import Job


class JobSource(Protocol):
    """Where a runner gets its jobs from."""

    inbox: calls.Inbox

    def claim(self, running: Counter[str], now: float) -> list[Job]:
        """Claim jobs that may begin now."""
        ...

    def answered(self, key: Any, answer: Any, running: Counter[str]) -> None:
        """Read an item of the inbox that belongs to no call."""
        ...

    def note_ends(self, pool: str, count: int, now: float) -> None:
        """Note that so many calls have ended."""
        ...

    def note_freed(self, pool: str) -> None:
        """Note that jobs with limits stopped running."""
        ...

    def leave(self, now: float) -> bool:
        """Whether the runner may end: there is nothing to claim. From then on another runner is needed."""
        ...

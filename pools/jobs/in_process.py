"""Where jobs run if not in Celery: in this process, for `snakepit.testing`."""

from __future__ import annotations

from typing import Protocol

from snakepit.pools.broker.spec import PoolSpec


class JobRunner(Protocol):
    def spec(self, pool: str) -> PoolSpec | None:
        """A pool's definition; None if there is no such pool."""
        ...

    def runs_now(self) -> bool:
        """Whether a job that is submitted at this moment runs immediately, and does not wait for a commit."""
        ...

    def send(self, job_id: str, delay: float) -> bool:
        """Run a job, or keep it; False if it stays queued."""
        ...


runner: JobRunner | None = None


def use(new: JobRunner | None) -> None:
    """Have jobs run here; None: in Celery."""
    global runner
    runner = new

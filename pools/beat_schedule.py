"""Intervals of beat by the monotonic clock.

Celery's beat compares wall clock times. If the clock is set back by two hours, beat would stop for two hours, or keep
running tasks that are due again before tasks that were already due.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import schedstate, schedule

_began, _began_at = datetime.now(UTC), time.monotonic()


def steady_now() -> datetime:
    """The wall clock at process start, plus the monotonic time since then."""
    return _began + timedelta(seconds=time.monotonic() - _began_at)


class BeatSchedule(schedule):
    """A fixed interval, independent of changes of the wall clock.

    Beat stores its last runs in a file. A last run in the future means that the clock was set back after it.
    """

    def __init__(
        self,
        run_every: float | timedelta | None = None,
        relative: bool = False,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
    ) -> None:
        super().__init__(run_every, relative, nowfun or steady_now, app)

    def is_due(self, last_run_at: datetime) -> Any:
        if self.maybe_make_aware(last_run_at) > self.now():
            return schedstate(is_due=True, next=self.seconds)
        return super().is_due(last_run_at)

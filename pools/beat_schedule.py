"""How often beat ticks, by a clock that nobody sets.

Celery's beat compares times of the wall clock. One that is set back by two hours would keep it silent for as long, or
let what is due again go before what was due already, again and again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import schedstate, schedule

_began, _began_at = datetime.now(UTC), time.monotonic()


def steady_now() -> datetime:
    """The time of day as it was when this process began, and on from there by the monotonic clock."""
    return _began + timedelta(seconds=time.monotonic() - _began_at)


class BeatSchedule(schedule):
    """Every so many seconds, also while the wall clock is set forward or back.

    Beat keeps its last runs in a file. What it did there "later than now" it did before the clock was set back.
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

"""The tasks that beat sends: their messages expire when the next one is due, by whatever scheduler sends them.

django-celery-beat drops the option `expires` of an entry. Without it, the ticks of an outage would all run after it.
"""

from __future__ import annotations

from celery import Task

from snakepit.pools.beat_schedule import BeatSchedule


class Tick(Task):  # type: ignore[misc]
    """A task whose messages expire after the interval of its entry; not if the project has an entry of its own."""

    abstract = True

    @property
    def expires(self) -> float | None:
        entries = (self.app.conf.beat_schedule or {}).values()
        schedules = [entry["schedule"] for entry in entries if entry.get("task") == self.name]
        return next((float(one.seconds) for one in schedules if isinstance(one, BeatSchedule)), None)

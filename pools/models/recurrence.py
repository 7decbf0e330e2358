"""When a periodic job runs: by a cron expression in a time zone, or at a fixed interval. Pure.

Clock changes follow Vixie cron. An expression with a fixed hour runs once on each day: a time that the clock skips
moves to the first minute after the gap, and of a time that comes twice the first counts. An expression with `*` or
`*/n` in minute or hour follows real time.

>>> daily = Recurrence(cron="30 2 * * *", zone="Europe/Berlin")
>>> noon = datetime(2026, 3, 28, 12, tzinfo=UTC)      # in the night after it, 2:00 to 3:00 does not exist
>>> [moment.isoformat() for moment in daily.some(noon, 2)]
['2026-03-29T01:00:00+00:00', '2026-03-30T00:30:00+00:00']
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

SHORTEST, LONGEST = 1, 366 * 86_400  # seconds of an interval
FIELDS = 5  # of an expression
# Files beside the zones: each host has its own, or counts leap seconds. Two schedulers would compute other times.
OF_A_HOST = frozenset({"localtime", "posixrules", "Factory"})
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A search for the latest time begins near the present: a rare expression has few times in a long span.
SPANS = tuple(timedelta(seconds=seconds) for seconds in (3600, 86_400, 31 * 86_400, 366 * 86_400))


@dataclass(frozen=True, slots=True)
class Recurrence:
    cron: str = ""
    zone: str = "UTC"
    interval: int | None = None  # seconds; the times are whole intervals since 1970

    def problems(self) -> dict[str, str]:
        """What is wrong with each field; empty if nothing is."""
        if bool(self.cron) == (self.interval is not None):
            return {"cron": "set either cron or interval" + (", not both" if self.cron else "")}
        if self.interval is not None:
            wrong = not SHORTEST <= self.interval <= LONGEST
            return {"interval": f"{self.interval} is outside {SHORTEST} to {LONGEST} seconds"} if wrong else {}
        found = (
            {"time_zone": f"{self.zone!r} is no time zone, such as Europe/Berlin"} if not _is_zone(self.zone) else {}
        )
        if why := _cron_problem(self.cron):
            found["cron"] = f"{self.cron!r}: {why}"
        return found

    def after(self, moment: datetime) -> datetime | None:
        """The first time after this moment, in UTC; None: there is none within 50 years."""
        moment = moment.astimezone(UTC)
        if self.interval is not None:
            step = timedelta(seconds=self.interval)
            return EPOCH + ((moment - EPOCH) // step + 1) * step
        for found in CronSim(self.cron, moment.astimezone(ZoneInfo(self.zone))):
            # A start in the repeated hour of autumn has the same local time as one an hour before it.
            if (at := found.astimezone(UTC)) > moment:
                return at
        return None

    def some(self, after: datetime, count: int) -> list[datetime]:
        """The first times after this moment."""
        return list(islice(self._all(after), count))

    def latest(self, due: datetime, now: datetime) -> datetime:
        """The last time until now. `due` is one of the times, and may be the last."""
        for start in (*(max(due, now - span) for span in SPANS), due):
            found = None
            for moment in self._all(start):
                if moment > now:
                    break
                found = moment
            if found or start == due:
                return found or due
        return due

    def _all(self, after: datetime) -> Iterator[datetime]:
        moment = self.after(after)
        while moment is not None:
            yield moment
            moment = self.after(moment)


@dataclass(frozen=True, slots=True)
class Occasion:
    """What a schedule does at a tick: the nominal time to run for (None: all were missed), and the next time."""

    nominal: datetime | None
    following: datetime | None


def occasion(recurrence: Recurrence, due: datetime, now: datetime, late: timedelta | None) -> Occasion:
    """Of the times from `due` until now, one run is made, for the last. With `late`, not if it is older than that."""
    nominal = recurrence.latest(due, now)
    following = recurrence.after(max(nominal, now))
    return Occasion(None if late is not None and now - nominal > late else nominal, following)


def _is_zone(name: str) -> bool:
    if name in OF_A_HOST or str(name).startswith(("right/", "posix/")):
        return False
    try:
        ZoneInfo(name)
    except Exception:  # the library raises ValueError, KeyError and errors of the file system
        return False
    return True


def _cron_problem(expression: str) -> str:
    if len(expression.split()) != FIELDS:
        return "must have the five fields minute, hour, day of month, month and day of week"
    try:
        next(CronSim(expression, EPOCH))
    except StopIteration:
        return "never comes"
    except (CronSimError, ValueError) as error:
        return f"{error}".lower() or "cannot be read"
    return ""

"""When a periodic job runs: cron with time zones and clock changes, intervals, and runs that were missed. Pure."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from snakepit.pools.models import recurrence
from snakepit.pools.models.recurrence import Recurrence, occasion

HOUR = timedelta(hours=1)


def test_the_examples_in_the_docstrings_are_true() -> None:
    found = doctest.testmod(recurrence)
    assert found.attempted
    assert not found.failed


def local(one: Recurrence, start: str, end: str) -> list[str]:
    """The times from one UTC time to another, in the schedule's zone."""
    first, last = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (start, end))
    zone, found = ZoneInfo(one.zone), []
    moment = one.after(first)
    while moment is not None and moment <= last:
        found.append(moment.astimezone(zone).strftime("%d %H:%M %Z"))
        moment = one.after(moment)
    return found


# In Berlin, 29 March 2026 has no 2:00 to 3:00, and 25 October has it twice.
CHANGES = [
    ("30 2 * * *", "Europe/Berlin", "2026-03-28", "2026-03-30 12:00",
     ["28 02:30 CET", "29 03:00 CEST", "30 02:30 CEST"]),
    ("30 2 * * *", "Europe/Berlin", "2026-10-24", "2026-10-26 12:00",
     ["24 02:30 CEST", "25 02:30 CEST", "26 02:30 CET"]),
    ("0 3 * * *", "Europe/Berlin", "2026-03-28 12:00", "2026-03-30", ["29 03:00 CEST"]),
    ("0 3 * * *", "Europe/Berlin", "2026-10-24 12:00", "2026-10-26", ["25 03:00 CET"]),
    ("15 * * * *", "Europe/Berlin", "2026-03-29", "2026-03-29 03:00",
     ["29 01:15 CET", "29 03:15 CEST", "29 04:15 CEST"]),
    ("15 * * * *", "Europe/Berlin", "2026-10-24 23:50", "2026-10-25 02:30",
     ["25 02:15 CEST", "25 02:15 CET", "25 03:15 CET"]),
    ("30 2 * * *", "America/New_York", "2026-03-07 12:00", "2026-03-09 12:00", ["08 03:00 EDT", "09 02:30 EDT"]),
    ("30 1 * * *", "America/New_York", "2026-10-31 12:00", "2026-11-02 12:00", ["01 01:30 EDT", "02 01:30 EST"]),
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-02 16:00", "2026-10-04", ["04 02:30 +11"]),  # half an hour
    ("0 9 * * MON", "Asia/Tokyo", "2026-01-01", "2026-01-13", ["05 09:00 JST", "12 09:00 JST"]),
]  # fmt: skip


@pytest.mark.parametrize(("cron", "zone", "start", "end", "expected"), CHANGES)
def test_each_local_time_runs_once_across_a_clock_change(
    cron: str, zone: str, start: str, end: str, expected: list[str]
) -> None:
    assert local(Recurrence(cron, zone), start, end) == expected


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "UTC"])
@pytest.mark.parametrize("cron", ["30 2 * * *", "0,30 1,2 * * *", "*/20 * * * *", "59 23 L * *"])
def test_times_rise_from_whatever_moment_the_search_begins(cron: str, zone: str) -> None:
    one = Recurrence(cron, zone)
    for start in (datetime(2026, 3, 28, 22, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC)):
        for minutes in range(0, 600, 7):
            moment = start + timedelta(minutes=minutes)
            found = one.after(moment)
            assert found is not None
            assert found > moment
            assert one.after(found - timedelta(microseconds=1)) == found


def test_an_interval_counts_real_time() -> None:
    one = Recurrence(interval=5400)
    assert local(one, "2026-01-01", "2026-01-01 05:00") == ["01 01:30 UTC", "01 03:00 UTC", "01 04:30 UTC"]


@pytest.mark.parametrize(
    ("one", "field", "words"),
    [
        (Recurrence(), "cron", "set either cron or interval"),
        (Recurrence("* * * * *", interval=5), "cron", "not both"),
        (Recurrence("* * * *"), "cron", "five fields"),
        (Recurrence("0 * * * * *"), "cron", "five fields"),
        (Recurrence("61 * * * *"), "cron", "bad minute"),
        (Recurrence("0 0 31 2 *"), "cron", "bad day-of-month"),
        (Recurrence("@daily"), "cron", "five fields"),
        (Recurrence("* * * * *", "Europe/Berlinn"), "time_zone", "no time zone"),
        (Recurrence("* * * * *", ""), "time_zone", "no time zone"),
        (Recurrence("* * * * *", "../passwd"), "time_zone", "no time zone"),
        (Recurrence(interval=0), "interval", "outside"),
        (Recurrence(interval=10**9), "interval", "outside"),
    ],
)
def test_a_wrong_schedule_is_named_by_its_field(one: Recurrence, field: str, words: str) -> None:
    assert words in one.problems()[field]


def test_right_schedules_have_no_problems() -> None:
    for one in (Recurrence("*/5 9-17 * JAN,MAR MON-FRI", "Europe/Berlin"), Recurrence(interval=1)):
        assert one.problems() == {}


def test_missed_runs_are_made_up_by_one_or_skipped() -> None:
    hourly = Recurrence("0 * * * *")
    due, now = datetime(2026, 1, 1, 3, tzinfo=UTC), datetime(2026, 1, 3, 7, 20, tzinfo=UTC)
    made_up = occasion(hourly, due, now, None)
    assert (made_up.nominal, made_up.following) == (now.replace(minute=0), now.replace(hour=8, minute=0))
    skipped = occasion(hourly, due, now, timedelta(minutes=1))
    assert (skipped.nominal, skipped.following) == (None, now.replace(hour=8, minute=0))
    in_time = occasion(hourly, due, due + timedelta(seconds=20), timedelta(minutes=1))
    assert (in_time.nominal, in_time.following) == (due, due + HOUR)


def test_a_clock_that_was_set_back_repeats_no_time() -> None:
    due = datetime(2026, 1, 1, 3, tzinfo=UTC)
    found = occasion(Recurrence("0 * * * *"), due, due - 2 * HOUR, None)
    assert (found.nominal, found.following) == (due, due + HOUR)


@pytest.mark.parametrize("cron", ["* * * * *", "0 0 1 1 *", "0 0 29 2 *", "30 2 * * *"])
def test_the_last_of_many_missed_times_is_found(cron: str) -> None:
    one, now = Recurrence(cron, "Europe/Berlin"), datetime(2026, 6, 1, 12, 0, 30, tzinfo=UTC)
    due = one.after(datetime(2011, 1, 1, tzinfo=UTC))
    assert due is not None
    last = one.latest(due, now)
    following = one.after(last)
    assert last <= now
    assert following is not None
    assert following > now

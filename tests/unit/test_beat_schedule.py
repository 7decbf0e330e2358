"""Beat's intervals, which a wall clock's jumps do not touch."""

from __future__ import annotations

import pickle
from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.beat import Scheduler
from celery.schedules import schedule

from snakepit.pools import beat_schedule
from snakepit.pools.beat_schedule import BeatSchedule
from snakepit.pools.celery_setup import beat_schedule as entries

EVERY = BeatSchedule(10.0)


@pytest.mark.parametrize(("ago", "due"), [(11.0, True), (10.0, True), (0.0, False), (-7200.0, True)])
def test_a_tick_is_due_after_its_interval_and_when_the_last_one_lies_in_the_future(ago: float, due: bool) -> None:
    assert EVERY.is_due(EVERY.now() - timedelta(seconds=ago)).is_due is due


def test_time_goes_on_by_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    before = EVERY.now()
    monkeypatch.setattr(beat_schedule, "datetime", None)  # the current wall clock must not matter
    monkeypatch.setattr(beat_schedule, "time", SimpleNamespace(monotonic=lambda: beat_schedule._began_at + 60.0))
    assert beat_schedule._began + timedelta(seconds=60) == EVERY.now()
    assert before.tzinfo is UTC


def test_beat_can_keep_it_in_its_file() -> None:
    again = pickle.loads(pickle.dumps(EVERY))
    assert again == EVERY
    assert again.nowfun is beat_schedule.steady_now
    assert abs(EVERY.now() - datetime.now(UTC)) < timedelta(hours=1)


def test_every_tick_has_it() -> None:
    ticks = entries().values()
    assert [type(tick["schedule"]) for tick in ticks] == [BeatSchedule] * 4


class Times:
    """The clocks of one process: both advance equally until the wall clock is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = datetime.now(UTC)
        self.monotonic = beat_schedule._began_at
        monkeypatch.setattr(beat_schedule, "time", SimpleNamespace(monotonic=lambda: self.monotonic))

    def pass_by(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.monotonic += seconds


class Sending(Scheduler):
    """Celery's own, which notes what it would send."""

    sent: list[str]

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        self.sent.append(entry.name)

    @property
    def producer(self) -> None:
        return None


def sent_in_a_minute(times: Times, kind: type[schedule], jump: timedelta) -> Counter[str]:
    """What beat sends in a minute in whose midst the wall clock is set."""
    app = Celery("test", set_as_current=False)
    app.now = lambda: times.wall
    every = {"often": 5.0, "seldom": 20.0}
    beat = Sending(app, schedule={}, lazy=True)
    beat.sent = []
    beat.update_from_dict({name: {"task": name, "schedule": kind(seconds)} for name, seconds in every.items()})
    for second in range(1, 61):
        times.pass_by(1.0)
        times.wall += jump if second == 30 else timedelta()
        while beat.tick() == 0:
            pass
    return Counter(beat.sent)


@pytest.mark.parametrize("hours", [2, -2])
def test_beat_sends_what_it_should_though_the_wall_clock_is_set(hours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times(monkeypatch)
    assert sent_in_a_minute(times, BeatSchedule, timedelta(hours=hours)) == {"often": 12, "seldom": 3}


def test_with_celerys_own_intervals_beat_is_silent_after_a_jump_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why there is a BeatSchedule at all: when this fails, it is not needed any more."""
    times = Times(monkeypatch)
    assert sent_in_a_minute(times, schedule, timedelta(hours=-2)) == {"often": 5, "seldom": 1}

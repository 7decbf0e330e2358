"""How many jobs a process claims beside those that run."""

from __future__ import annotations

import pytest

from snakepit.pools.jobs.planner import HORIZON, MOST_EXTRA, ONE, UNKNOWN, Load, Rate, load, room


def test_a_process_fills_the_slots_that_no_other_caller_uses() -> None:
    assert room(Load(slots=4), 0, 0.0) == 5
    assert room(Load(slots=4, others=3), 0, 0.0) == 2
    assert room(Load(slots=4, others=9), 0, 0.0) == 1  # its jobs take their turn in the broker's queue


@pytest.mark.parametrize("running", range(12))
def test_a_slot_that_becomes_free_is_filled_at_once(running: int) -> None:
    assert room(Load(slots=8), running, 0.0) == max(0, 9 - running)


def test_short_jobs_are_claimed_many_at_once_within_bounds() -> None:
    assert room(Load(slots=2, queue=1000), 2, 900.0) == 900 * HORIZON
    assert room(Load(slots=2, queue=1000), 0, 1e6) == 2 + MOST_EXTRA
    assert room(Load(slots=2, queue=10), 0, 1e6) == 2 + 5  # half of the broker's queue
    assert room(Load(slots=2), 80, 1000.0) == 0  # more than half of them still wait


def test_one_thread_claims_one_long_job_or_many_short_ones() -> None:
    assert room(ONE, 0, 0.0) == 1
    assert room(ONE, 0, 300.0) == 30


def test_a_broker_that_does_not_answer_gets_a_few_jobs() -> None:
    assert room(UNKNOWN, 0, 0.0) == 4
    assert room(UNKNOWN, 4, 0.0) == 0


def test_calls_of_this_process_are_no_load_of_others() -> None:
    assert load(slots=4, free=0, waiting=3, queue=100, running=7) == Load(4, 0, 100)
    assert load(slots=4, free=0, waiting=3, queue=100, running=2) == Load(4, 5, 100)
    assert load(slots=4, free=4, waiting=0, queue=100, running=2) == Load(4, 0, 100)  # not sent yet


def test_a_rate_follows_what_happened_last() -> None:
    rate = Rate()
    for tick in range(200):
        rate.add(10, tick * 0.05)
    assert rate.value == pytest.approx(200, rel=0.05)
    for tick in range(200, 240):
        rate.add(0, tick * 0.05)
    assert rate.value < 10


def test_work_after_a_quiet_time_continues_at_the_rate_before_it() -> None:
    rate = Rate()
    for tick in range(1, 41):
        rate.add(50, tick * 0.05)
    before = rate.value
    rate.begin(100.0)
    rate.add(10, 100.01)
    assert rate.value == pytest.approx(before, rel=0.2)
    for tick in range(1, 21):  # the jobs are longer than those before
        rate.add(1, 100.01 + tick * 0.1)
    assert rate.value < 20


def test_claims_that_follow_each_other_do_not_begin_anew() -> None:
    rate, other = Rate(), Rate()
    for tick in range(40):
        for one in (rate, other):
            one.add(50, tick * 0.05)
        rate.begin(tick * 0.05 + 0.04)
    assert rate.value == other.value


def test_ends_of_one_moment_make_no_rate_without_end() -> None:
    rate = Rate()
    for _ in range(100):
        rate.add(5, 1.0)
    assert rate.value == 0.0
    rate.add(0, 1.5)
    assert 0 < rate.value <= 1000

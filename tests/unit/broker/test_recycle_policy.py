"""The rules without state: delays, limits, and the last output of a dead worker."""

from __future__ import annotations

from random import Random

import pytest

from snakepit.pools.broker.pool.recycle_policy import LAST_LINES, last_output, lost_slots_allowed, restart_delay

IDLE = [f"  idle {number}" for number in range(30)]
BAD = [f"  bad {number}" for number in range(30)]
FATAL = "Fatal Python error: Aborted"


@pytest.mark.parametrize(("failures", "delay"), [(1, 0.5), (2, 1.0), (7, 32.0), (8, 60.0), (50, 60.0)])
def test_the_delay_doubles_up_to_a_minute_with_a_fifth_of_chance(failures: int, delay: float) -> None:
    found = [restart_delay(failures, Random(seed)) for seed in range(200)]
    assert 0.8 * delay <= min(found) < 0.85 * delay
    assert 1.15 * delay < max(found) <= 1.2 * delay


def test_without_a_failure_there_is_no_delay() -> None:
    assert restart_delay(0, Random(1)) == 0.0


@pytest.mark.parametrize(("slots", "allowed"), [(1, 0), (4, 0), (7, 0), (8, 1), (11, 1), (16, 3)])
def test_less_than_a_quarter_of_the_slots_may_be_lost(slots: int, allowed: int) -> None:
    assert lost_slots_allowed(slots) == allowed


def test_the_last_output_is_the_stack_of_the_thread_that_crashed() -> None:
    lines = ["start", "Current thread 0:", FATAL, "", "Thread 1:", *IDLE, "Current thread 2:", *BAD, "Thread 3:", *IDLE]
    assert last_output(lines) == [FATAL, "Current thread 2:", *BAD[: LAST_LINES - 2]]


def test_without_a_current_thread_it_is_what_follows_the_fatal_error() -> None:
    assert last_output(["start", FATAL, *BAD]) == [FATAL, *BAD[: LAST_LINES - 1]]


def test_of_two_fatal_errors_the_last_one_counts() -> None:
    assert last_output([FATAL, "first", "Fatal Python error: Bus error", "second"])[1:] == ["second"]


def test_without_a_crash_it_is_the_last_lines() -> None:
    assert last_output([*IDLE, "bye"]) == [*IDLE[-LAST_LINES + 1 :], "bye"]

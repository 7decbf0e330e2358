"""The order of claims among owners. Pure."""

from __future__ import annotations

import doctest

from snakepit.pools.jobs import fairness
from snakepit.pools.jobs.fairness import fair_order


def test_the_examples_in_the_docstrings_are_true() -> None:
    found = doctest.testmod(fairness)
    assert found.attempted
    assert not found.failed


def test_owners_take_turns() -> None:
    waiting = {"ada": [(number, 0) for number in range(100)], "bob": [(200, 0), (201, 0)], "eve": [(300, 0)]}
    order = fair_order(waiting, {}, {"ada": 0.3, "bob": 0.2, "eve": 0.1})
    assert order[:7] == [300, 200, 0, 201, 1, 2, 3]
    assert len(order) == 103


def test_priority_comes_before_turns() -> None:
    waiting = {"ada": [(1, 9), (2, 9), (3, 0)], "bob": [(4, 0)]}
    assert fair_order(waiting, {"ada": 5}, {"ada": 0.1, "bob": 0.2}) == [1, 2, 4, 3]


def test_running_jobs_are_turns() -> None:
    waiting = {"ada": [(1, 0), (2, 0)], "bob": [(3, 0), (4, 0), (5, 0)]}
    assert fair_order(waiting, {"ada": 2}, {"ada": 0.1, "bob": 0.2}) == [3, 4, 1, 5, 2]

"""The ids of jobs sort in the order in which they were made."""

from __future__ import annotations

import itertools
import time
import uuid

import pytest

from snakepit.pools.models.job import uuid7

NOON = 1_800_000_000_000_000_000  # ns
STEP = 250  # ns: more than a part of a millisecond


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that each reading finds a little later."""
    moments = itertools.count(NOON, STEP)
    monkeypatch.setattr(time, "time_ns", lambda: next(moments))


@pytest.mark.usefixtures("clock")
def test_ids_of_one_millisecond_sort_as_they_were_made() -> None:
    made = [uuid7() for _ in range(1_000_000 // STEP)]
    assert made == sorted(made)
    assert {one.int >> 80 for one in made} == {NOON // 1_000_000}, "the time that any reader of an id finds"
    assert {(one.version, one.variant) for one in made} == {(7, uuid.RFC_4122)}


def test_ids_of_the_same_moment_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: NOON)
    assert len({uuid7() for _ in range(1000)}) == 1000

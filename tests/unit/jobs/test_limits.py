"""What a claim takes from a pool with limits, decided without a database."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from snakepit.pools.broker.job_limits import JobLimit
from snakepit.pools.jobs.limits import Full, KeyUsage, pick

Row = tuple[int, str, str]


def chosen(rows: Sequence[Row], usage: KeyUsage, most: int) -> list[Any]:
    def candidates(full: Full, taken: Sequence[Any]) -> Iterable[Row]:
        free = [row for row in rows if row[0] not in taken and row[1] not in full.owners and row[2] not in full.keys]
        return free[:most]

    return pick(candidates, usage, most)


def test_a_key_without_room_holds_up_no_other_behind_it() -> None:
    rows = [*((number, "ada", "") for number in range(50)), (50, "bob", ""), (51, "cy", "")]
    assert chosen(rows, KeyUsage([JobLimit("owner", running=2)], [("bob", "", 2)], []), 9) == [0, 1, 51]


def test_a_job_needs_room_in_every_limit() -> None:
    limits = [JobLimit("pool", running=3), JobLimit("owner", running=2), JobLimit("argument:tenant", per_minute=1)]
    rows = [(1, "ada", "x"), (2, "ada", "x"), (3, "ada", "y"), (4, "bob", "y"), (5, "bob", "z"), (6, "bob", "w")]
    assert chosen(rows, KeyUsage(limits, [], []), 9) == [1, 3, 5]


def test_a_job_without_the_key_of_an_argument_has_no_limit_by_it() -> None:
    rows = [(1, "ada", ""), (2, "ada", ""), (3, "ada", "x"), (4, "ada", "x")]
    assert chosen(rows, KeyUsage([JobLimit("argument:tenant", running=1)], [], []), 9) == [1, 2, 3]


def test_starts_count_for_a_rate_and_running_jobs_for_the_other() -> None:
    usage = KeyUsage([JobLimit("owner", running=2, per_minute=3)], [("ada", "", 1)], [("ada", "", 2)])
    rows = [(1, "ada", ""), (2, "ada", "")]
    assert chosen(rows, usage, 9) == [1]
    assert usage.reason("ada", "") == "waits for the limit of 3 started jobs a minute by owner"
    assert usage.rated
    assert usage.reason("bob", "") == ""


@pytest.mark.parametrize("seed", range(20))
def test_no_limit_is_exceeded_and_nothing_that_fits_is_left(seed: int) -> None:
    chance = random.Random(seed)
    limits = [JobLimit("pool", running=12), JobLimit("owner", running=3), JobLimit("argument:tenant", running=2)]
    rows = [(number, chance.choice("abcdef"), chance.choice(["", "x", "y", "z"])) for number in range(80)]
    taken = chosen(rows, KeyUsage(limits, [], []), 10)
    by_id = {row[0]: row for row in rows}
    owners = Counter(by_id[one][1] for one in taken)
    keys = Counter(by_id[one][2] for one in taken if by_id[one][2])
    assert max(owners.values()) <= 3
    assert max(keys.values(), default=0) <= 2
    assert len(taken) == len(set(taken)) <= 10
    if len(taken) < 10:
        left = [row for row in rows if row[0] not in taken]
        assert all(owners[row[1]] == 3 or (row[2] and keys[row[2]] == 2) for row in left)

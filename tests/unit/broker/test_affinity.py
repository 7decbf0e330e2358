"""Calls with a key: the worker that they prefer, and what they do where it has no room."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from snakepit.pools.broker.pool.affinity import MOST_KEYS
from snakepit.pools.broker.pool.dispatcher import has_room
from tests.unit.broker.conftest import Table


def test_calls_with_the_same_key_go_to_the_same_free_worker(table: Any) -> None:
    t = table(size=3).ready(1, 2, 3)
    for key in ("ada", "ben", "ada", "ada", "ben", "", ""):
        call = t.submit(affinity=key)
        t.finish(t.assigned()[-1][1], call)
    assert [worker for _, worker in t.assigned()] == [1, 2, 1, 1, 2, 3, 1]


def test_a_call_does_not_wait_for_its_home_and_the_home_stays(table: Any) -> None:
    t = table(size=2).ready(1, 2)
    first = t.submit(affinity="ada")
    t.submit(affinity="ada")
    assert t.assigned() == [(1, 1), (2, 2)]
    t.finish(1, first)
    t.finish(2, 2)
    t.submit(affinity="ada")
    assert t.assigned()[-1] == (3, 1)


def test_a_home_that_leaves_or_dies_is_replaced(table: Any) -> None:
    t = table(size=2).ready(1, 2)
    t.finish(1, t.submit(affinity="ada"))
    t.die(1)
    t.finish(2, t.submit(affinity="ada"))
    t.ready(3)
    t.submit(affinity="ada")
    assert [worker for _, worker in t.assigned()] == [1, 2, 2]
    t = table(size=2, max_surge=1).ready(1, 2)
    t.finish(1, t.submit(affinity="ada"))
    t.recycle(1)
    t.ready(3)
    t.finish(2, t.submit(affinity="ada"))
    assert t.assigned()[-1][1] != 1


def test_short_calls_are_prefetched_by_their_home(table: Any) -> None:
    t = table(size=2).ready(1, 2).knows()
    t.submit(affinity="ada")
    t.submit(affinity="ben")
    for key in ("ben", "ben", "ada", "ben"):
        t.submit(affinity=key)
    assert [worker for _, worker in t.assigned()] == [1, 2, 2, 2, 1, 2]


def test_the_number_of_keys_is_bounded(table: Any) -> None:
    t = table(size=1).ready(1)
    for number in range(MOST_KEYS + 10):
        t.finish(1, t.submit(affinity=f"user-{number}"))
    assert len(t.pool.dispatcher._preferred._of) == MOST_KEYS
    t.die(1)
    assert not t.pool.dispatcher._preferred._of


def test_of_too_many_keys_the_one_that_was_used_longest_ago_is_forgotten(table: Any) -> None:
    t = table(size=1).ready(1)
    for number in (*range(MOST_KEYS), 0, MOST_KEYS):
        t.finish(1, t.submit(affinity=f"user-{number}"))
    known = t.pool.dispatcher._preferred._of
    assert "user-0" in known
    assert "user-1" not in known


def test_a_key_finds_one_new_home_while_its_old_one_still_ends_a_call(table: Any) -> None:
    t = table(size=3, max_surge=1).ready(1, 2, 3)
    t.submit(affinity="ada")  # it goes on
    t.recycle(1)
    t.ready(4)
    assert t.states()[1] == "draining"
    homes = []
    for key in ("ada", "", "ada", "", "ada"):
        call = t.submit(affinity=key)
        homes += [t.assigned()[-1][1]] if key else []
        t.finish(t.assigned()[-1][1], call)
    assert len(set(homes)) == 1


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c", "d"]), st.booleans()), max_size=60))
def test_no_call_waits_beside_a_free_slot_because_of_its_key(steps: list[tuple[str, bool]]) -> None:
    t = Table(size=3).ready(1, 2, 3)
    for key, ends in steps:
        t.submit(affinity=key)
        running = [(worker, call) for worker in (1, 2, 3) for call in t.worker(worker).assigned]
        if ends and running:
            t.finish(*running[0])
        free = [worker for worker in (1, 2, 3) if has_room(t.worker(worker))]
        assert not (free and len(t.pool.queue))

"""Alarms: the earliest first, one a key, and no memory of those that are over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snakepit.pools.broker.pool.times import Timers


def test_100_000_timers_set_and_cleared_leave_a_small_heap() -> None:
    timers = Timers()
    most = 0
    for number in range(100_000):
        timers.set(number, number + 60.0)
        timers.clear(number)
        most = max(most, timers._entries)
    assert len(timers) == 0
    assert most <= 65


def test_a_timer_that_is_moved_again_and_again_leaves_a_small_heap() -> None:
    timers = Timers()
    for number in range(100_000):
        timers.set("one", float(number))
    assert timers._entries <= 65
    assert timers.next() == 99_999.0


def test_a_timer_that_moves_back_and_forth_leaves_a_small_heap_and_rings_where_it_is() -> None:
    timers = Timers()
    for number in range(10_000):
        timers.set("one", float(-number))
        timers.set("one", float(number))
    assert timers._entries <= 65
    assert (timers.due(9_998.0), timers.next(), timers.due(9_999.0)) == ([], 9_999.0, ["one"])


def test_a_compacted_heap_still_knows_every_timer() -> None:
    timers = Timers()
    for number in range(1000):
        timers.set(number, 1000.0 - number)
    for number in range(900):
        timers.clear(number)
    for _ in range(5000):
        timers.set("moved", 2000.0)
    assert timers.due(150.0) == list(range(999, 899, -1))
    assert len(timers) == 1


def test_a_cleared_timer_does_not_ring_and_clearing_twice_is_harmless() -> None:
    timers = Timers()
    timers.set("a", 1.0)
    timers.clear("a")
    timers.clear("a")
    assert timers.next() is None
    assert timers.due(9.0) == []


def test_timers_at_the_same_moment_ring_in_the_order_they_were_set() -> None:
    timers = Timers()
    for key in "cab":
        timers.set(key, 1.0)
    assert timers.due(1.0) == ["c", "a", "b"]


def test_keys_that_are_set_to_one_moment_twice_ring_once_and_moved_ones_where_they_are() -> None:
    timers = Timers()
    for key in "aabb":
        timers.set(key, 1.0)
    timers.set("b", 2.0)
    assert (timers.due(1.0), timers.due(2.0), timers.next()) == (["a"], ["b"], None)


def test_keys_of_different_types_at_one_moment_are_not_compared() -> None:
    timers = Timers()
    timers.set(7, 1.0)
    timers.set(("boot", "p-1"), 1.0)
    assert timers.due(1.0) == [7, ("boot", "p-1")]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 8), st.integers(0, 30)),
        st.tuples(st.just("clear"), st.integers(0, 8), st.just(0)),
        st.tuples(st.just("due"), st.just(0), st.integers(0, 30)),
    ),
    max_size=80,
)


@given(steps)
def test_timers_behave_as_a_dict_that_is_searched(script: list[tuple[str, int, int]]) -> None:
    timers, naive = Timers(), dict[int, int]()
    for step, key, at in script:
        if step == "set":
            timers.set(key, float(at))
            naive[key] = at
        elif step == "clear":
            timers.clear(key)
            naive.pop(key, None)
        else:
            rung = timers.due(float(at))
            assert sorted(rung) == sorted(key for key, when in naive.items() if when <= at)
            assert [naive[key] for key in rung] == sorted(naive[key] for key in rung)
            for key in rung:
                del naive[key]
        assert len(timers) == len(naive)
        assert timers.next() == min(naive.values(), default=None)

"""The line against a list that is sorted anew for every question."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit.pools.broker.pool.call import Call
from snakepit.pools.broker.pool.call_queue import CallQueue


def call(number: int, priority: int = 0, size: int = 1) -> Call:
    return Call(number, "run", arrived=float(number), deadline=1e9, size=size, priority=priority)


def test_a_call_that_had_its_turn_goes_to_the_head_of_its_own_priority() -> None:
    line = CallQueue()
    for number in (1, 2):
        line.join(call(number))
    line.join(call(3, priority=1))
    line.join(call(9), first=True)
    assert [line.take().id for _ in range(4)] == [3, 9, 1, 2]


def test_whoever_does_not_wait_cannot_leave() -> None:
    line = CallQueue()
    line.join(call(1))
    with pytest.raises(KeyError):
        line.leave(2)
    assert line.take().id == 1
    with pytest.raises(IndexError):
        line.take()
    assert (len(line), line.bytes) == (0, 0)


def test_the_oldest_wait_is_found_in_every_lane() -> None:
    line = CallQueue()
    assert line.oldest_wait(7.0) == 0.0
    line.join(call(5, priority=3))
    line.join(call(2, priority=-3))
    assert line.oldest_wait(7.0) == 5.0


def test_a_line_may_change_while_it_is_walked() -> None:
    line = CallQueue()
    for number in range(5):
        line.join(call(number))
    for waiting in line:
        line.leave(waiting.id)
    assert len(line) == 0


steps = st.lists(
    st.tuples(
        st.sampled_from(["join", "join", "first", "take", "leave"]),
        st.integers(-2, 2),
        st.integers(0, 9),
        st.integers(0),
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(steps)
def test_the_line_behaves_as_a_list_of_lanes(script: list[tuple[str, int, int, int]]) -> None:
    line, naive, number = CallQueue(), list[Call](), 0
    for step, priority, size, choice in script:
        if step in ("join", "first"):
            number += 1
            one = call(number, priority, size)
            line.join(one, first=step == "first")
            naive.insert(0 if step == "first" else len(naive), one)
        elif step == "take" and naive:
            expected = max(naive, key=lambda waiting: waiting.priority)  # max: the first among equals
            assert line.take() is expected
            naive.remove(expected)
        elif step == "leave" and naive:
            expected = naive[choice % len(naive)]
            assert line.leave(expected.id) is expected
            naive.remove(expected)
        assert len(line) == len(naive)
        assert line.bytes == sum(waiting.size for waiting in naive)
        assert {waiting.id for waiting in line} == {waiting.id for waiting in naive}
        assert all(waiting.id in line for waiting in naive)

"""The queue against a list that is sorted anew for every question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.pools.broker.pool.calls import Call, CallQueue


def call(number: int, priority: int = 0, size: int = 1) -> Call:
    return Call(number, "run", arrived=float(number), deadline=1e9, size=size, priority=priority)


def test_a_call_that_had_its_turn_goes_to_the_head_of_its_own_priority() -> None:
    queue = CallQueue()
    for number in (1, 2):
        queue.put(call(number))
    queue.put(call(3, priority=1))
    queue.put(call(9), first=True)
    assert [queue.take().id for _ in range(4)] == [3, 9, 1, 2]


def test_a_call_that_does_not_wait_cannot_be_removed() -> None:
    queue = CallQueue()
    queue.put(call(1))
    with pytest.raises(KeyError):
        queue.remove(2)
    assert queue.take().id == 1
    with pytest.raises(IndexError):
        queue.take()
    assert (len(queue), queue.bytes) == (0, 0)


def test_the_oldest_wait_is_found_in_every_priority() -> None:
    queue = CallQueue()
    assert queue.oldest_wait(7.0) == 0.0
    queue.put(call(5, priority=3))
    queue.put(call(2, priority=-3))
    assert queue.oldest_wait(7.0) == 5.0


def test_a_queue_may_change_while_it_is_iterated() -> None:
    queue = CallQueue()
    for number in range(5):
        queue.put(call(number))
    for waiting in queue:
        queue.remove(waiting.id)
    assert len(queue) == 0


steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "first", "take", "remove"]),
        st.integers(-2, 2),
        st.integers(0, 9),
        st.integers(0),
    ),
    max_size=60,
)


@given(steps)
def test_the_queue_behaves_as_a_list_by_priority(script: list[tuple[str, int, int, int]]) -> None:
    queue, naive, number = CallQueue(), list[Call](), 0
    for step, priority, size, choice in script:
        if step in ("put", "first"):
            number += 1
            one = call(number, priority, size)
            queue.put(one, first=step == "first")
            naive.insert(0 if step == "first" else len(naive), one)
        elif step == "take" and naive:
            expected = max(naive, key=lambda waiting: waiting.priority)  # max: the first among equals
            assert queue.take() is expected
            naive.remove(expected)
        elif step == "remove" and naive:
            expected = naive[choice % len(naive)]
            assert queue.remove(expected.id) is expected
            naive.remove(expected)
        assert len(queue) == len(naive)
        assert queue.bytes == sum(waiting.size for waiting in naive)
        assert {waiting.id for waiting in queue} == {waiting.id for waiting in naive}
        assert all(waiting.id in queue for waiting in naive)

"""The load_index against a search through all workers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snakepit.pools.broker.pool.calls import Call
from snakepit.pools.broker.pool.dispatcher import LoadIndex
from snakepit.pools.broker.pool.worker import State, Worker


def worker(name: str, slots: int = 3, state: State = State.READY) -> Worker:
    return Worker(name, 1, slots, born=0.0, state=state)


def load(one: Worker, calls: int) -> None:
    one.assigned = {number: Call(number, "run", 0.0, 1.0) for number in range(calls)}


def test_the_least_loaded_goes_first_and_among_equals_the_one_that_was_free_longest() -> None:
    load_index, one, two = LoadIndex(), worker("one"), worker("two")
    load(one, 1)
    for each in (one, two):
        load_index.update(each)
    assert load_index.least_loaded() is two
    load(two, 1)
    load_index.update(two)
    assert load_index.least_loaded() is one


def test_a_full_and_a_draining_worker_leave_the_load_index() -> None:
    load_index, one = LoadIndex(), worker("one", slots=1)
    load_index.update(one)
    assert load_index.with_free_slot == 1
    load(one, 1)
    load_index.update(one)
    assert (load_index.with_free_slot, load_index.least_loaded()) == (0, None)
    load(one, 0)
    one.state = State.DRAINING
    load_index.update(one)
    assert load_index.least_loaded() is None


steps = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from(list(State))), max_size=60)


@given(st.lists(st.integers(1, 4), min_size=5, max_size=5), steps)
def test_the_load_index_behaves_as_a_search(slots: list[int], script: list[tuple[int, int, State]]) -> None:
    load_index = LoadIndex()
    workers = [worker(str(number), count) for number, count in enumerate(slots)]
    placed: list[Worker] = []
    for number, calls, state in script:
        one = workers[number]
        load(one, min(calls, one.slots))
        one.state = state
        load_index.update(one)
        placed = [each for each in placed if each is not one] + [one]
        free = [each for each in placed if each.state is State.READY and each.load < each.slots]
        assert load_index.with_free_slot == len(free)
        assert load_index.least_loaded() is min(free, key=lambda each: each.load, default=None)

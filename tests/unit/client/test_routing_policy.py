"""Which node takes a call: the order of the candidates, the failures that move a call, and the error that remains."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snakepit.pools.broker.errors import (
    AdapterError,
    BrokerError,
    BrokerUnreachable,
    CommandSuspended,
    DeadlineExceeded,
    NodeDraining,
    PoolFailed,
    PoolPaused,
    PoolUnknown,
    QueueFull,
    WorkerLost,
)
from snakepit.pools.client.routing.policy import (
    NodeReport,
    PoolLoad,
    may_move,
    may_repeat,
    most_telling,
    order,
    order_by_key,
)

IDLE = PoolLoad(slots=4, free=4, waiting=0)
FULL = PoolLoad(slots=4, free=0, waiting=8)


def node(name: str, load: PoolLoad | None = IDLE, *, own: bool = False, serving: bool = True) -> NodeReport:
    return NodeReport(name, own=own, serving=serving, pools={"p": load} if load else {})


def random_nodes(rng: Random) -> list[NodeReport]:
    def load() -> PoolLoad:
        slots = rng.randint(0, 8)
        return PoolLoad(slots, rng.randint(0, slots), rng.randint(0, 5), fit=rng.random() < 0.8, sent=rng.randint(0, 9))

    return [
        node(f"n{at}", load() if rng.random() < 0.8 else None, own=at == 0, serving=rng.random() < 0.7)
        for at in range(rng.randint(0, 7))
    ]


def test_every_order_has_the_nodes_that_may_take_the_call_and_no_other() -> None:
    rng = Random(1)
    for _ in range(3000):
        nodes = random_nodes(rng)
        tried = {one.name for one in nodes if rng.random() < 0.2}
        found = order(nodes, "p", tried, rng.random)
        fit = {one.name for one in nodes if one.serving and "p" in one.pools and one.pools["p"].fit} - tried
        assert sorted(found) == sorted(fit)
        by_name = {one.name: one for one in nodes}
        groups = [0 if by_name[name].own else 1 if by_name[name].pools["p"].left else 2 for name in found]
        assert groups == sorted(groups)


def test_the_node_of_this_host_comes_first_although_it_is_busy() -> None:
    assert order([node("a"), node("b", FULL, own=True)], "p", (), Random(1).random) == ["b", "a"]
    assert order([node("a"), node("b", own=True, serving=False)], "p", (), Random(1).random) == ["a"]


def test_equal_nodes_get_equal_shares() -> None:
    rng = Random(2)
    for load in (IDLE, FULL):
        first = Counter(order([node(one, load) for one in "abc"], "p", (), rng.random)[0] for _ in range(6000))
        assert all(abs(count - 2000) < 200 for count in first.values())


def test_a_node_with_more_free_slots_gets_more() -> None:
    rng = Random(3)
    nodes = [node("a", PoolLoad(12, 12, 0)), node("b", PoolLoad(12, 4, 0)), node("c", FULL)]
    first = Counter(order(nodes, "p", (), rng.random)[0] for _ in range(4000))
    assert first["c"] == 0
    assert 2700 < first["a"] < 3300


def test_among_full_nodes_the_one_with_fewer_calls_for_each_slot_gets_more() -> None:
    rng = Random(5)
    nodes = [node("a", PoolLoad(4, 2, 0, sent=6)), node("b", PoolLoad(4, 0, 12))]  # two calls for each slot, and four
    first = Counter(order(nodes, "p", (), rng.random)[0] for _ in range(6000))
    assert first["a"] / first["b"] == pytest.approx(25 / 9, rel=0.1)


def test_a_node_that_reports_more_free_slots_than_it_has_gets_its_share() -> None:
    rng = Random(6)
    nodes = [node("a"), node("b", PoolLoad(slots=4, free=10**6, waiting=-7))]
    first = Counter(order(nodes, "p", (), rng.random)[0] for _ in range(6000))
    assert abs(first["a"] - 3000) < 250
    assert order_by_key([node("a"), node("b", PoolLoad(0, 5, 0))], "p", "ada")[0] == "a"


ANY = st.integers(-(2**31), 2**31)


@given(
    st.lists(st.builds(PoolLoad, ANY, ANY, ANY, sent=st.integers(0, 5)), max_size=4), st.floats(0, 1, exclude_max=True)
)
@example([PoolLoad(-1, 0, 0)], 0.5)
def test_no_report_of_a_node_makes_the_choice_fail(loads: list[PoolLoad], chance: float) -> None:
    nodes = [node(str(at), load) for at, load in enumerate(loads)]
    assert len(order(nodes, "p", (), lambda: chance)) == len(order_by_key(nodes, "p", "ada")) == len(nodes)


def test_processes_that_share_old_reports_share_the_load() -> None:
    """Four processes decide on reports that are a second old, while one node comes back empty."""
    rng = Random(4)
    queue, taken = {"a": 20, "b": 20, "c": 0}, Counter[str]()
    for second in range(30):
        reports = {name: PoolLoad(8, max(0, 8 - depth), max(0, depth - 8)) for name, depth in queue.items()}
        sent = [Counter[str]() for _ in range(4)]
        for number in range(72):  # the calls of one second; the nodes together end as many
            mine = sent[number % 4]
            views = [node(name, replace(load, sent=mine[name])) for name, load in reports.items()]
            chosen = order(views, "p", (), rng.random)[0]
            mine[chosen] += 1
            queue[chosen] += 1
            taken[chosen] += 1
        assert max(queue.values()) < (62 if second == 0 else 56)  # all 72, if each process chose the emptiest
        queue = {name: max(0, depth - 24) for name, depth in queue.items()}
    assert all(abs(count - 720) < 0.2 * 720 for count in taken.values())


@given(st.sets(st.text(min_size=1), min_size=1, max_size=8), st.text(min_size=1), st.data())
def test_a_key_keeps_its_node_when_another_one_leaves_or_joins(names: set[str], key: str, data: st.DataObject) -> None:
    nodes = [node(name, own=data.draw(st.booleans())) for name in sorted(names)]
    found = order_by_key(nodes, "p", key)
    assert sorted(found) == sorted(names)
    assert found == order_by_key(nodes[::-1], "p", key)
    gone = data.draw(st.sampled_from(found))
    rest = [one for one in nodes if one.name != gone]
    assert order_by_key(rest, "p", key) == [name for name in found if name != gone]
    away = [replace(one, serving=one.name != gone) for one in nodes]
    assert order_by_key(away, "p", key) == [name for name in found if name != gone]


def test_keys_are_shared_evenly_and_a_node_without_a_free_slot_comes_last() -> None:
    nodes = [node(name) for name in "abc"]
    first = Counter(order_by_key(nodes, "p", f"user-{number}")[0] for number in range(3000))
    assert all(abs(count - 1000) < 150 for count in first.values())
    usual = order_by_key(nodes, "p", "ada")
    busy = [node(name, FULL if name == usual[0] else IDLE) for name in "abc"]
    assert order_by_key(busy, "p", "ada") == [*usual[1:], usual[0]]


@pytest.mark.parametrize(
    ("error", "moves", "repeats"),
    [
        (BrokerUnreachable(outcome="not_started"), True, False),
        (BrokerUnreachable(), False, True),
        (NodeDraining(), True, False),
        (PoolUnknown(), True, False),
        (QueueFull(), True, False),
        (CommandSuspended(), True, False),
        (PoolPaused(), False, False),
        (WorkerLost(), False, False),
        (AdapterError(), False, False),
        (DeadlineExceeded(), False, False),
        (DeadlineExceeded(outcome="not_started"), False, False),
    ],
)
def test_which_failures_let_another_node_try(error: BrokerError, moves: bool, repeats: bool) -> None:
    assert (may_move(error), may_repeat(error)) == (moves, repeats)


def test_the_error_of_all_nodes_is_the_one_that_says_most() -> None:
    soon, late = QueueFull(retry_after=0.5), QueueFull(retry_after=9.0)
    assert most_telling([late, PoolUnknown(), soon]) is soon
    drained = NodeDraining()
    assert most_telling([PoolUnknown(), BrokerUnreachable(outcome="not_started"), drained]) is drained
    suspended = CommandSuspended()
    assert most_telling([PoolFailed(), suspended, drained]) is suspended
    ran = BrokerUnreachable()
    assert most_telling([soon, ran]) is ran

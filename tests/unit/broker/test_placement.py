"""Where a pool lives: what matches a node, and what is refused."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from snakepit.pools.broker.placement import find_labels_problem, find_nodes_problem, is_placed, parse_labels
from snakepit.pools.broker.spec import InvalidSpec, PoolSpec

LABELS = {"gpu": "a100", "zone": "b"}


@pytest.mark.parametrize(
    ("nodes", "placed"),
    [
        ((), True),
        (("n1",), True),
        (("n2",), False),
        (("n2", "n1"), True),
        (("gpu=a100",), True),
        (("gpu=h100",), False),
        (("zone=b,gpu=a100",), True),
        (("zone=c,gpu=a100",), False),
        (("zone=c", "gpu=a100"), True),
        (("gpu",), False),
    ],
)
def test_one_entry_that_matches_is_enough(nodes: tuple[str, ...], placed: bool) -> None:
    assert is_placed(nodes, "n1", LABELS) is placed


def test_each_entry_counts_alone() -> None:
    rng = Random(16)
    entries = ["n1", "n2", "gpu=a100", "gpu=t4", "zone=b", "zone=b,gpu=a100", "zone=a,gpu=a100"]
    for _ in range(500):
        nodes = rng.sample(entries, rng.randint(1, 5))
        labels = {key: rng.choice(("a", "b", "a100", "t4")) for key in rng.sample(("gpu", "zone"), rng.randint(0, 2))}
        name = rng.choice(("n1", "n2", "n3"))
        assert is_placed(nodes, name, labels) == any(is_placed([one], name, labels) for one in nodes)


@pytest.mark.parametrize("wrong", ["gpu=yes", [""], [" n1"], ["n1,n2"], ["gpu=a b"], ["=x"], [7], ["a=1,a=2"], 5])
def test_a_wrong_place_is_refused_with_what_to_write(wrong: Any) -> None:
    assert find_nodes_problem(wrong)
    with pytest.raises(InvalidSpec, match="nodes: "):
        PoolSpec(name="p", adapter="a", nodes=wrong)


def test_a_list_of_a_row_is_the_same_definition() -> None:
    of_a_row: Any = ["n1"]
    assert PoolSpec(name="p", adapter="a", nodes=of_a_row) == PoolSpec(name="p", adapter="a", nodes=("n1",))


def test_labels_of_the_environment() -> None:
    assert parse_labels(" gpu=a100 ,zone=b,") == LABELS
    assert parse_labels("") == {}
    for wrong in ("gpu", "gpu=a b", "gpu=1,gpu=2"):
        with pytest.raises(ValueError, match="label"):
            parse_labels(wrong)


def test_labels_of_the_settings() -> None:
    assert find_labels_problem(LABELS) is None
    for wrong in ("gpu=a100", {"gpu": 1}, {"a b": "c"}):
        assert find_labels_problem(wrong)

"""The statuses of several nodes as one view."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from snakepit.pools.broker.stats.histogram import BUCKETS, quantile
from snakepit.pools.broker.status import BrokerStatus, PoolHistograms, PoolStatus
from snakepit.pools.client.cluster_status import SUMMED, WORST_FIRST, NodeAnswer, PoolTotals, merge
from tests.statuses import pool, status, worker

COUNTS = st.dictionaries(st.integers(0, BUCKETS - 1), st.integers(1, 10**6), max_size=5)
NUMBERS = {name: st.integers(0, 10**6) for name in SUMMED}


@st.composite
def pools(draw: st.DrawFn, name: str) -> PoolStatus:
    numbers = {name: draw(values) for name, values in NUMBERS.items()}
    return pool(name, state=draw(st.sampled_from(WORST_FIRST)), oldest_wait=draw(st.floats(0, 1e6)), **numbers)


@st.composite
def statuses(draw: st.DrawFn) -> BrokerStatus:
    names = draw(st.sets(st.sampled_from(["a", "b", "c"])))
    histograms = {name: PoolHistograms(draw(COUNTS), draw(COUNTS)) for name in names}
    return status([draw(pools(name)) for name in sorted(names)], histograms=histograms)


@st.composite
def clusters(draw: st.DrawFn) -> list[NodeAnswer]:
    given = draw(st.lists(st.none() | statuses(), max_size=4))
    return [NodeAnswer(f"n{at}", one, "" if one else "it is away") for at, one in enumerate(given)]


@given(statuses())
def test_the_merge_of_one_node_changes_nothing(one: BrokerStatus) -> None:
    found = merge([NodeAnswer("n1", one)])
    assert {pool.name for pool in found.pools} == {pool.name for pool in one.pools}
    for merged in found.pools:
        of_node = one.pool(merged.name)
        assert of_node is not None
        assert [getattr(merged, name) for name in (*SUMMED, "oldest_wait", "state", "reason")] == [
            getattr(of_node, name) for name in (*SUMMED, "oldest_wait", "state", "reason")
        ]
        (only,) = merged.nodes
        assert all(getattr(merged, each.name) == getattr(only, each.name) for each in fields(PoolTotals))
        assert (merged.state_node, only.node) == ("n1", "n1")


@given(clusters(), st.randoms(use_true_random=False))
def test_the_order_of_the_answers_does_not_matter(answers: list[NodeAnswer], chance: object) -> None:
    before = merge(answers)
    chance.shuffle(answers)  # type: ignore[attr-defined]
    assert merge(answers) == before


@given(clusters())
def test_counts_add_up_and_percentiles_come_from_all_calls_together(answers: list[NodeAnswer]) -> None:
    found = merge(answers)
    for name in SUMMED:
        total = sum(getattr(pool, name) for one in answers if one.status for pool in one.status.pools)
        assert sum(getattr(pool, name) for pool in found.pools) == total
        assert sum(getattr(part, name) for pool in found.pools for part in pool.nodes) == total
    for each in found.pools:
        all_calls: Counter[int] = Counter()
        for one in answers:
            if one.status and each.name in one.status.histograms:
                all_calls.update(one.status.histograms[each.name].ran)
        assert each.latency.run_p95 == quantile(all_calls, 0.95)


def test_the_state_of_a_pool_is_the_worst_one_with_its_node() -> None:
    found = merge(
        [
            NodeAnswer("n1", status([pool("p", state="ready")])),
            NodeAnswer("n2", status([pool("p", state="failed", reason="cannot import")])),
            NodeAnswer("n3", status([pool("p", state="degraded", reason="1 of 2")])),
        ]
    )
    merged = found.pool("p")
    assert merged is not None
    assert (merged.state, merged.state_node, merged.reason) == ("failed", "n2", "cannot import")
    assert [(one.node, one.state) for one in merged.nodes] == [("n1", "ready"), ("n2", "failed"), ("n3", "degraded")]


def test_a_percentile_is_no_mean_of_the_nodes_percentiles() -> None:
    busy, idle = PoolHistograms(ran={10: 990}), PoolHistograms(ran={80: 10})
    found = merge(
        [
            NodeAnswer("n1", status([pool("p")], histograms={"p": busy})),
            NodeAnswer("n2", status([pool("p")], histograms={"p": idle})),
        ]
    )
    merged = found.pool("p")
    assert merged is not None
    assert merged.latency.run_p50 == merged.latency.run_p95 == quantile({10: 1}, 0.5)
    assert merged.nodes[1].latency.run_p95 == quantile({80: 1}, 0.5)


def test_a_node_that_does_not_answer_stays_in_the_list_with_its_reason() -> None:
    found = merge(
        [
            NodeAnswer("n2", None, "no answer within 0.8 s"),
            NodeAnswer("n1", status([pool("p")], [worker("p-1")], draining=True, drain_reason="new disk"), own=True),
        ]
    )
    assert [(one.name, one.state, one.reason) for one in found.nodes] == [
        ("n1", "draining", "new disk"),
        ("n2", "not answering", "no answer within 0.8 s"),
    ]
    assert [one.name for one in found.away] == ["n2"]
    assert (found.node_of("p-1"), found.node_of("p-2")) == ("n1", "")


def test_a_node_that_does_not_answer_has_its_last_report_and_its_age() -> None:
    found = merge([NodeAnswer("a", status(), seen_at=99.5), NodeAnswer("b", None, "away", seen_at=40.0),
                   NodeAnswer("c", None, "away")], now=100.0)  # fmt: skip
    assert [(one.name, one.seen_at, one.age) for one in found.nodes] == [
        ("a", 99.5, 0.5), ("b", 40.0, 60.0), ("c", 0.0, None),
    ]  # fmt: skip


def test_the_nodes_that_differ_from_most_are_named_and_all_of_them_where_none_is_usual() -> None:
    def different(*of: PoolStatus) -> list[str]:
        (found,) = merge(NodeAnswer(f"n{at}", status([one])) for at, one in enumerate(of)).pools
        return [one.node for one in found.different]

    usual, short = pool("p", size=2, ready=2), pool("p", size=2, ready=1)
    assert different(usual, usual, usual) == []
    assert different(usual, short, usual) == ["n1"]
    assert different(usual, short) == ["n0", "n1"]
    assert different(usual, usual, short, short) == ["n0", "n1", "n2", "n3"]


def test_a_warning_has_its_nodes_unless_all_have_it() -> None:
    (found,) = merge([
        NodeAnswer("a", status([pool("p", warnings=("same", "one by one"))])),
        NodeAnswer("b", status([pool("p", warnings=("same",))])),
    ]).pools  # fmt: skip
    assert found.warnings == ("same", "on a: one by one")

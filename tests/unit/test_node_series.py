"""The points of several nodes: one of each, and the sum of those that answered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from snakepit.pools.broker.stats.histogram import Histogram, quantile
from snakepit.pools.broker.status import BrokerStatus, PoolHistograms
from snakepit.pools.client.cluster_status import NodeAnswer
from snakepit.pools.dashboard.node_series import ClusterSeries
from snakepit.pools.dashboard.points import Point
from snakepit.pools.dashboard.state import StateStore
from tests import statuses
from tests.statuses import pool, worker


def status(name: str, *, finished: int = 0, pid: int = 1, ran: Histogram | None = None) -> BrokerStatus:
    histograms = {"p": PoolHistograms(ran=ran.sparse() if ran else {})}
    found = statuses.status([pool("p", ready=2, finished=finished)], [worker(f"{name}-1")], pid=pid)
    return replace(found, node=replace(found.node, name=name), histograms=histograms)


def answers(*found: BrokerStatus, away: Iterable[str] = ()) -> list[NodeAnswer]:
    return [*(NodeAnswer(one.node.name, one) for one in found), *(NodeAnswer(name, None, "lost") for name in away)]


def rates(points: Iterable[Point]) -> list[float | None]:
    return [point.ok_rate for point in points]


def test_the_points_of_nodes_add_up_and_each_node_has_its_own() -> None:
    series = ClusterSeries()
    for second in range(3):
        series.add(answers(status("a", finished=10 * second), status("b", finished=5 * second)), float(second))
    assert rates(series.points("p")) == rates(series.points("")) == [None, 15.0, 15.0]
    assert rates(series.points("p", "a")) == [None, 10.0, 10.0]
    assert [point.ready for point in series.points("", "b")] == [2, 2, 2]
    assert [point.ready for point in series.points("p")] == [4, 4, 4]
    assert list(series.points("p", "c")) == list(series.points("q")) == []


def test_a_node_that_does_not_answer_has_a_gap_and_no_rate_across_it() -> None:
    series = ClusterSeries()
    series.add(answers(status("a"), status("b")), 0.0)
    series.add(answers(status("a", finished=10), away=["b"]), 1.0)
    series.add(answers(status("a", finished=20), status("b", finished=1000)), 60.0)
    assert [point.ready for point in series.points("p")] == [4, 2, 4]
    assert [point.at for point in series.points("p", "b")] == [0.0, 60.0]
    assert rates(series.points("p", "b")) == [None, None]


def test_the_counters_of_a_restarted_broker_begin_anew() -> None:
    series = ClusterSeries()
    series.add(answers(status("a", finished=500)), 0.0)
    series.add(answers(status("a", finished=2, pid=2)), 1.0)
    assert rates(series.points("p", "a")) == [None]


def test_percentiles_are_of_the_calls_of_all_nodes() -> None:
    series = ClusterSeries()
    series.add(answers(status("a", ran=Histogram()), status("b", ran=Histogram())), 0.0)
    quick, slow = Histogram(), Histogram()
    for _ in range(90):
        quick.add(0.001)
    for _ in range(10):
        slow.add(1.0)
    series.add(answers(status("a", ran=quick), status("b", ran=slow)), 1.0)
    point = list(series.points("p"))[-1]
    assert point.p50 == pytest.approx(quantile(quick.sparse(), 0.5), rel=0.01)
    assert point.p99 == pytest.approx(quantile(slow.sparse(), 0.5), rel=0.01)


def test_a_pool_and_a_node_that_are_gone_leave_nothing() -> None:
    series = ClusterSeries()
    series.add(answers(status("a"), status("b")), 0.0)
    series.add(answers(statuses.status(), away=["b"]), 1.0)
    assert list(series.points("p")) != []  # node b, which does not answer, had it
    series.add(answers(statuses.status()), 2.0)
    assert list(series.points("p")) == list(series.points("p", "b")) == []


def test_charts_are_those_of_the_only_node_until_another_one_is_known() -> None:
    store = StateStore()
    store.fold(status("a"), 1.0)
    assert [point.ready for point in store.points("p")] == [2]
    store.fold_nodes(answers(status("a"), status("b")), 2.0)
    assert [point.ready for point in store.points("p")] == [4]
    assert [point.ready for point in store.points("p", node="b")] == [2]
    store.fold_nodes((), 3.0)
    assert [point.ready for point in store.points("p")] == [2]


def test_the_memory_of_workers_of_other_nodes_is_sampled_too() -> None:
    store = StateStore()
    store.fold_nodes(answers(status("a"), status("b")), 1.0)
    state = store.fold(status("a"), 2.0)
    assert set(state.memory) == {"a-1", "b-1"}
    found = state.find_worker("b-1")
    assert found is not None
    assert found.node == "b"
    assert [one.node for one in state.all_workers] == ["a", "b"]


def test_a_clock_that_is_set_back_begins_the_points_of_all_nodes_anew() -> None:
    series = ClusterSeries()
    for second in (7200.0, 7201.0):
        series.add(answers(status("a"), status("b")), second)
    for second in range(3):
        series.add(answers(status("a", finished=10 * second), status("b")), float(second))
    assert rates(series.points("p")) == rates(series.points("")) == rates(series.points("p", "a")) == [None, 10.0, 10.0]

"""Alerts of several nodes."""

from __future__ import annotations

from snakepit.pools.client.cluster_status import NodeAnswer
from snakepit.pools.dashboard.alerts import Alert, StoredState
from snakepit.pools.dashboard.node_alerts import alerts_of_nodes, together
from snakepit.pools.dashboard.state import StateStore
from tests.statuses import event, pool, status

PAUSED = pool("p", state="paused")


def alerts(*answers: NodeAnswer, stored: StoredState | None = None) -> list[Alert]:
    return together(alerts_of_nodes(answers, lambda _: (), stored or StoredState(), 1.0, 1000.0))


def test_an_alert_that_nodes_share_is_shown_once_with_its_nodes() -> None:
    found = alerts(NodeAnswer("a", status([PAUSED])), NodeAnswer("b", status([PAUSED])), NodeAnswer("c", status()))
    assert [(one.key, one.nodes) for one in found] == [("paused:p", ("a", "b"))]


def test_alerts_with_other_causes_stay_apart() -> None:
    failed = [pool("p", state="failed", reason=reason) for reason in ("no module", "no space")]
    found = alerts(*(NodeAnswer(name, status([one])) for name, one in zip("ab", failed, strict=True)))
    assert [(one.key, one.cause, one.nodes) for one in found] == [
        ("failed:p", "no module", ("a",)), ("failed:p", "no space", ("b",)),
    ]  # fmt: skip


def test_a_node_that_does_not_answer_is_an_alert_unless_its_broker_is_silent() -> None:
    away = NodeAnswer("b", None, "no answer within 0.8 s")
    (found,) = alerts(NodeAnswer("a", status()), away)
    assert (found.key, found.level, found.cause, found.nodes) == ("away:b", "error", away.reason, ("b",))
    (found,) = alerts(NodeAnswer("a", status()), away, stored=StoredState(silent_nodes=(("b", 5.0),)))
    assert (found.key, found.nodes) == ("silent:b", ())


def test_what_the_database_has_is_there_once() -> None:
    stored = StoredState(quarantined=2, quarantined_since=5.0)
    found = alerts(NodeAnswer("a", status()), NodeAnswer("b", status()), stored=stored)
    assert [(one.key, one.nodes) for one in found] == [("quarantined", ())]


def test_a_shared_alert_is_as_old_as_its_first_node_and_the_worst_comes_first() -> None:
    store = StateStore()
    acted = event(1, "operator.acted", reason="pause", at=7.0)
    for at, second in ((10.0, status(name="b")), (20.0, status([PAUSED], name="b", events=[acted]))):
        own = status([PAUSED], name="a")
        store.fold_nodes([NodeAnswer("a", own, own=True), NodeAnswer("b", second), NodeAnswer("c", None, "x")], at)
        store.fold(own, at)
    assert [(one.key, one.nodes, one.since, one.first_seen) for one in store.state.alerts] == [
        ("away:c", ("c",), 10.0, True), ("paused:p", ("a", "b"), 7.0, False),
    ]  # fmt: skip


def test_a_broker_that_stops_answering_leaves_the_sums_at_once() -> None:
    store = StateStore()
    own, other = status([pool("p", ready=2)], name="a"), status([pool("p", ready=3)], name="b")
    store.fold_nodes([NodeAnswer("a", own, own=True, seen_at=1.0), NodeAnswer("b", other, seen_at=1.0)], 1.0)
    state = store.fold(status([pool("p", ready=1)], name="a"), 1.5)  # newer than the round
    assert state.cluster is not None
    assert state.cluster.pools[0].ready == 4
    state = store.miss("no broker listens", 2.0, at=2.0)
    assert state.cluster is not None
    assert [(one.name, one.answers, one.seen_at) for one in state.cluster.nodes] == [
        ("a", False, 1.5),
        ("b", True, 1.0),
    ]
    assert (state.cluster.pools[0].ready, state.stale) == (3, False)
    assert [one.key for one in state.alerts] == ["away:a"]

"""The dashboard's memory: statuses folded into facts, points and events."""

from __future__ import annotations

from typing import Any

from snakepit.pools.dashboard.points import COLUMNS, RING, SPAN, summed
from snakepit.pools.dashboard.state import Board


def pool(**more: Any) -> dict[str, Any]:
    there = {"name": "p", "finished": 0, "failed": 0, "waiting": 0, "oldest_wait": 0.0, "ready": 1, "busy": 0}
    more = {"state": "ready", "reason": "", "size": 1, "queue_limit": 10, "lost": 0, **more}
    return {**there, "slots": 2, "free": 1, "memory_mb": 5.0, **more}


def status(*pools: dict[str, Any], pid: int = 1, **more: Any) -> dict[str, Any]:
    workers = [{"id": "p-1", "pool": "p", "state": "starting", "memory_mb": -1.0}]
    return {"node": {"name": "n", "pid": pid, "started_at": 1.0}, "pools": list(pools), "workers": workers, **more}


def event(seq: int, **more: Any) -> dict[str, Any]:
    return {"seq": seq, "at": float(seq), "kind": "worker.started", "pool": "p", "worker": "p-1", **more}


def test_a_rate_is_measured_over_the_last_seconds() -> None:
    board = Board()
    for second in range(10):
        board.fold(status(pool(finished=100 * second, failed=second)), float(second))
    point = board.points("p")[-1]
    assert (point.ok_rate, point.failed_rate, point.starting, point.taken) == (100.0, 1.0, 1, 1)


def test_a_first_look_and_a_counter_that_fell_are_no_rate() -> None:
    board = Board()
    board.fold(status(pool(finished=500)), 1.0)
    board.fold(status(pool(finished=3)), 2.0)
    assert [point.ok_rate for point in board.points("p")] == [0.0, 0.0]


def test_percentiles_are_of_the_calls_of_the_last_seconds() -> None:
    board = Board()
    slow, quick = {"ran": {60: 100}, "queued": {}}, {"ran": {60: 100, 20: 50}, "queued": {10: 5}}
    board.fold(status(pool(), figures={"p": slow}), 0.5)
    assert board.points("p")[-1].p50 is None  # what came before the first look is of no known time
    board.fold(status(pool(), figures={"p": quick}), 1.0)
    point = board.points("p")[-1]
    assert point.p99 is not None
    assert point.p99 < 0.001
    assert point.wait_p95 is not None
    board.fold(status(pool(), figures={"p": quick}), 2.0 + SPAN)
    assert board.points("p")[-1].p50 is None


def test_the_memory_of_a_pool_is_bounded_and_ends_with_it() -> None:
    board = Board()
    for number in range(RING + 50):
        board.fold(status(pool()), number / 2)
    assert len(board.points("p")) == RING
    assert [point.at for point in board.points("p", after=(RING + 48) / 2)] == [(RING + 49) / 2]
    board.fold(status(), 1000.0)
    assert board.points("p") == []


def test_events_are_kept_once_and_the_newest_first() -> None:
    board = Board()
    board.fold(status(events=[event(1), event(2)]), 1.0)
    assert board.last_event() == 0  # only a broker that answered twice is asked for the rest alone
    board.fold(status(events=[event(1), event(2), event(3)]), 2.0)
    assert [one["seq"] for one in board.facts.events] == [3, 2, 1]
    assert board.last_event() == 3


def test_another_broker_has_other_events_and_other_counters() -> None:
    board = Board()
    for at in (1.0, 2.0):
        board.fold(status(pool(finished=50), events=[event(7)]), at)
    board.fold(status(pool(), pid=2, events=[event(1)]), 3.0)
    assert [one["seq"] for one in board.facts.events] == [1]
    assert len(board.points("p")) == 1
    assert board.last_event() == 0


def test_what_was_known_stays_when_the_broker_is_away() -> None:
    board = Board()
    board.fold(status(pool()), 1.0)
    board.miss("gone", 2.0)
    facts = board.miss("gone", 3.0)
    assert (facts.known, facts.seen_at, facts.trouble, facts.trouble_since) == (True, 1.0, "gone", 2.0)
    assert not board.fold(status(pool()), 4.0).trouble


def test_all_pools_together_add_up_and_the_worst_wait_counts() -> None:
    board = Board()
    for second in (1.0, 2.0):
        calls = int(second) * 10
        one, other = pool(finished=calls, oldest_wait=1.0), pool(name="q", finished=calls, oldest_wait=3.0)
        board.fold(status(one, other), second)
    columns = summed([board.points("p"), board.points("q")])
    assert set(columns) == set(COLUMNS)
    assert columns["ok_rate"] == [0.0, 20.0]
    assert columns["oldest_wait"] == [3.0, 3.0]
    assert columns["p95"] == [None, None]

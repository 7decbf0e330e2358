"""When a broker collects the garbage that ended workers leave."""

from __future__ import annotations

from snakepit.pools.adapters.node import COLLECT_GONE, EndedWorkers


def test_the_garbage_of_ten_ended_workers_is_collected_once() -> None:
    ended = EndedWorkers()
    assert not ended.are_many(["stays", *map(str, range(COLLECT_GONE))])
    assert not ended.are_many(["stays", "0"]), "one of ten is still there"
    assert ended.are_many(["stays"])
    assert not ended.are_many(["stays"])


def test_workers_that_start_are_no_garbage() -> None:
    ended = EndedWorkers()
    assert not any(ended.are_many(map(str, range(count))) for count in range(100))

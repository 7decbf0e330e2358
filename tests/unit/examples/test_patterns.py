"""The showcase of thread-safe patterns: what it answers, and what the race checker says of each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from snakepit.examples.patterns import Words
from snakepit.workers.runtime.races import RaceChecker

TEXT = "The key is in the lock and the lock is in the door"


def test_words_are_counted() -> None:
    adapter = Words()
    adapter.setup()
    assert adapter.words(text=TEXT) == ["key", "lock", "lock", "door"]
    assert [adapter.add(text=TEXT), adapter.add_carelessly(text=TEXT)] == [1, 2]
    assert adapter.top(limit=1) == [("lock", 4)]


@pytest.mark.parametrize(
    ("command", "found"), [("words", []), ("add", []), ("top", []), ("add_carelessly", ["texts", "counts[...]"])]
)
def test_the_checker_is_silent_on_the_safe_patterns_and_finds_the_careless_one(command: str, found: list[str]) -> None:
    races: list[Any] = []
    adapter = Words()
    adapter.setup()
    RaceChecker(races.append).watch(adapter)
    arguments = {} if command == "top" else {"text": TEXT}
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        for thread in (first, second, first):
            thread.submit(getattr(adapter, command), **arguments).result(30)
    assert [race.attribute for race in races] == found

"""Results that wait to be counted: nothing is lost, nothing is counted twice, and they do not wait for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from snakepit.pools.broker.stats.buffered_meter import MOST, BufferedMeter


class Books:
    """A Meter that can be read."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str, str]] = Counter()
        self.times: list[tuple[float, float]] = []
        self.delivered_to: Counter[str] = Counter()
        self.times_full: Counter[str] = Counter()

    def executed(self, pool: str, command: str, code: str, queued: float, ran: float) -> None:
        self.calls[pool, command, code] += 1

    def succeeded(self, pool: str, command: str, queued: Sequence[float], ran: Sequence[float]) -> None:
        self.calls[pool, command, "ok"] += len(ran)
        self.times += zip(queued, ran, strict=True)

    def delivered(self, pool: str, results: int) -> None:
        self.delivered_to[pool] += results

    def full(self, pool: str, times: int) -> None:
        self.times_full[pool] += times


def test_an_error_is_counted_at_once() -> None:
    books = Books()
    BufferedMeter(books).executed("p", "run", "queue_full", 0.0, 0.0)
    assert books.calls == {("p", "run", "queue_full"): 1}


def test_results_are_counted_when_there_are_many_without_being_asked() -> None:
    books = Books()
    buffered_meter = BufferedMeter(books)
    for _ in range(MOST - 1):
        buffered_meter.succeeded("p", "run", [0.0], [1.0])
    assert not books.calls
    buffered_meter.succeeded("p", "run", [0.0], [1.0])
    assert books.calls == {("p", "run", "ok"): MOST}


names = st.sampled_from(["p", "q"])
results = st.tuples(st.just("succeeded"), names, names, st.lists(st.floats(0, 9), max_size=MOST // 2))
others = st.tuples(st.sampled_from(["delivered", "full", "count"]), names)


@given(st.lists(results | others, max_size=30))
def test_all_that_was_told_is_in_the_books_once_it_is_counted(told: list[tuple[str, str, str, list[float]]]) -> None:
    at_once, later = Books(), Books()
    buffered_meter = BufferedMeter(later)
    for fact, *of in told:
        for meter in (at_once, buffered_meter):
            if fact == "succeeded":
                pool, command, times = of
                meter.succeeded(str(pool), str(command), [2 * time for time in times], list(times))
            elif fact == "delivered":
                meter.delivered(str(of[0]), 1)
            elif fact == "full":
                meter.full(str(of[0]), 1)
        if fact == "count":
            buffered_meter.count()
    buffered_meter.count()
    buffered_meter.count()
    assert (later.calls, later.delivered_to, later.times_full) == (
        at_once.calls, at_once.delivered_to, at_once.times_full
    )  # fmt: skip
    assert sorted(later.times) == sorted(at_once.times)

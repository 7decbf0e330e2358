"""What the broker keeps for watchers: numbered events, histograms, and that all is passed on."""

from __future__ import annotations

from snakepit.pools.adapters.records.recent_events import EVENTS, RecentEvents
from snakepit.pools.broker.events import Event, Kind
from snakepit.pools.broker.ports import NoMeter
from snakepit.pools.broker.stats.histogram import Histogram, merged, quantile, since
from tests.fakes import ListRecorder
from tests.statuses import status


def test_events_are_numbered_and_the_newest_are_kept() -> None:
    recorder = ListRecorder()
    recent = RecentEvents(NoMeter(), recorder)
    for number in range(EVENTS + 10):
        recent.record(float(number), Event(Kind.WORKER_STARTED, "p", f"p-{number}"))
    assert [number for number, _, _ in recent.events(EVENTS + 7)] == [EVENTS + 8, EVENTS + 9, EVENTS + 10]
    assert len(list(recent.events(0))) == EVENTS
    assert len(recorder.events) == EVENTS + 10


def test_a_number_of_another_brokers_life_gives_all_events() -> None:
    recent = RecentEvents(NoMeter(), ListRecorder())
    recent.record(1.0, Event(Kind.NODE_STARTED))
    assert [number for number, _, _ in recent.events(500)] == [1]


def test_calls_that_ran_are_timed_by_pool_and_those_that_never_did_are_not() -> None:
    recent = RecentEvents(NoMeter(), ListRecorder())
    recent.executed("p", "c", "ok", 0.001, 0.1)
    recent.executed("p", "c", "raised", 0.001, 0.2)
    recent.executed("p", "c", "queue_full", 0.0, 0.0)
    found = recent.histograms()["p"]
    assert sum(found.ran.values()) == sum(found.queued.values()) == 2


def test_calls_that_ended_well_together_are_timed_as_if_they_had_ended_one_by_one() -> None:
    together, alone = RecentEvents(NoMeter(), ListRecorder()), RecentEvents(NoMeter(), ListRecorder())
    waits, runs = (0.001, 0.2, 0.0), (0.5, 0.00001, 1e9)
    together.succeeded("p", "run", waits, runs)
    for wait, run in zip(waits, runs, strict=True):
        alone.executed("p", "run", "ok", wait, run)
    assert together.histograms() == alone.histograms()


def test_recycles_are_counted_by_reason() -> None:
    recent = RecentEvents(NoMeter(), ListRecorder())
    for reason in ("ttl", "ttl", "operator"):
        recent.record(1.0, Event(Kind.WORKER_RECYCLED, "p", "p-1", reason))
    assert recent.histograms()["p"].recycled == {"ttl": 2, "operator": 1}
    recent.record(2.0, Event(Kind.POOL_REMOVED, "p"))
    assert recent.histograms() == {}


def test_a_snapshot_that_is_recorded_carries_the_histograms() -> None:
    recorder = ListRecorder()
    recent = RecentEvents(NoMeter(), recorder)
    recent.executed("p", "c", "ok", 0.0, 0.1)
    recent.observe(status())
    assert recorder.statuses[-1].histograms["p"].ran


def test_a_percentile_is_within_a_tenth() -> None:
    for seconds in (0.00005, 0.0007, 0.013, 0.9, 3.3, 250.0):
        histogram = Histogram()
        histogram.add(seconds)
        found = quantile(histogram.sparse(), 0.5)
        assert found is not None
        assert abs(found - seconds) / seconds < 0.1


def test_the_shortest_and_the_longest_have_a_bucket() -> None:
    histogram = Histogram()
    for seconds in (0.0, -1.0, 1e-9, 1e9):
        histogram.add(seconds)
    assert sum(histogram.sparse().values()) == 4


def test_histograms_subtract_and_add_up() -> None:
    histogram = Histogram()
    histogram.add(0.001)
    before = histogram.sparse()
    histogram.add(0.001)
    histogram.add(1.0)
    new = since(histogram.sparse(), before)
    assert sum(new.values()) == 2
    assert merged([before, new]) == histogram.sparse()
    assert since(before, histogram.sparse()) == before  # it went down: another broker's

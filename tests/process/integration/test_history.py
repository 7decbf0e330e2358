"""The history of pools: minutes in, quarters out, columns of a chart."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from snakepit.pools import history, tasks
from snakepit.pools.adapters.records.recorder import DatabaseRecorder
from snakepit.pools.broker.stats.histogram import Histogram
from snakepit.pools.broker.status import PoolHistograms
from snakepit.pools.dashboard.points import COLUMNS
from snakepit.pools.dashboard.series import with_past
from snakepit.pools.models import Event, PoolPeriod
from snakepit.pools.models.period import MINUTE, QUARTER
from tests.process.integration.fakes import POOL, WORKER, FakeClient
from tests.statuses import status

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def buckets(*seconds: float) -> dict[int, int]:
    histogram = Histogram()
    for one in seconds:
        histogram.add(one)
    return histogram.sparse()


def minute(number: int, **more: Any) -> PoolPeriod:
    values = {"node": "n", "pool": "p", "seconds": MINUTE, "ok": 60, "ready": 2.0, **more}
    return PoolPeriod.objects.create(at=NOON + timedelta(minutes=number), **values)


@pytest.mark.django_db
def test_minutes_are_rolled_up_once_however_often() -> None:
    for number in range(20):
        minute(number, waiting=number, ran=buckets(0.1), recycled={"ttl": 1})
    now = NOON + timedelta(minutes=21)
    for _ in range(2):
        assert history.roll_up(now) == 1  # the second quarter is not over
    (row,) = PoolPeriod.objects.filter(seconds=QUARTER)
    assert (row.at, row.ok, row.ready, row.waiting, row.recycled) == (NOON, 900, 2.0, 14, {"ttl": 15})
    assert sum(row.ran.values()) == 15


@pytest.mark.django_db
def test_what_no_chart_shows_is_pruned() -> None:
    minute(0)
    minute(0, seconds=QUARTER)
    assert history.prune(NOON + timedelta(hours=24)) == 0
    assert history.prune(NOON + timedelta(hours=26)) == 1
    assert history.prune(NOON + timedelta(days=9)) == 1


@pytest.mark.django_db
def test_columns_add_pools_up_and_percentiles_are_of_all_calls() -> None:
    minute(0, ran=buckets(*[0.001] * 99), ok=99)
    minute(0, pool="q", ran=buckets(1.0), ok=21, oldest_wait=3.0)
    minute(2)
    columns = history.columns("", 3600, NOON + timedelta(minutes=6))
    assert columns["ok_rate"] == [2.0, None, 1.0]  # a hole in the time is a hole in the line
    assert columns["oldest_wait"][0] == 3.0
    assert columns["ready"][0] == 4.0
    assert columns["p50"][0] == pytest.approx(0.001, rel=0.1)
    assert columns["p99"][0] == pytest.approx(0.001, rel=0.1)
    assert history.columns("q", 3600, NOON + timedelta(minutes=6))["p50"] == [pytest.approx(1.0, rel=0.1)]
    assert history.columns("nothing", 3600, NOON) == {}
    assert {len(column) for column in columns.values()} == {3}


@pytest.mark.django_db
def test_a_long_span_is_made_of_quarters() -> None:
    minute(0)
    minute(0, seconds=QUARTER, ok=450)
    assert history.columns("p", 86_400, NOON + timedelta(hours=1))["ok_rate"] == [0.5]


@pytest.mark.django_db
def test_the_recorder_writes_the_minutes_of_the_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, clock = DatabaseRecorder("n"), [NOON.timestamp()]
    monkeypatch.setattr("snakepit.pools.adapters.records.recorder.time.time", lambda: clock[0])
    monkeypatch.setattr("snakepit.pools.adapters.records.recorder.close_old_connections", lambda: None)
    for second in range(0, 125, 5):
        clock[0] = NOON.timestamp() + second
        histograms = PoolHistograms(buckets(*[0.1] * second), {}, {"ttl": second // 60})
        pool = replace(POOL, finished=second)
        recorder.observe(status([pool], [WORKER], histograms={"digits": histograms}))
        assert recorder._flush()
    first, second_row = PoolPeriod.objects.order_by("at")
    assert (first.pool, first.node, first.at, first.ok) == ("digits", "n", NOON, 60)
    assert sum(first.ran.values()) == 60
    assert second_row.recycled == {"ttl": 1}
    assert (second_row.ready, second_row.waiting, second_row.taken) == (2.0, 3, 1.0)


@pytest.mark.django_db
def test_beat_rolls_up_and_prunes() -> None:
    minute(0)  # long ago
    assert tasks.roll_up() == 0
    assert tasks.prune() == 1
    from snakepit.site.celery import app

    assert app.conf.beat_schedule["snakepit.rollup"]["task"] == "snakepit.rollup"


@pytest.mark.django_db
def test_a_chart_of_an_hour_comes_from_the_database(admin_client: Client, broker: FakeClient) -> None:
    from django.utils import timezone

    now = timezone.now().replace(second=0, microsecond=0)
    PoolPeriod.objects.create(node="n", pool="digits", seconds=MINUTE, at=now - timedelta(minutes=2), ok=120)
    Event.objects.create(at=now, kind="worker.recycled", pool="digits", worker="digits-1", reason="ttl")
    found = admin_client.get("/live/series/?pool=digits&span=3600").json()
    assert found["columns"]["ok_rate"] == [2.0]
    assert [(mark["kind"], mark["text"]) for mark in found["marks"]] == [("recycle", "digits-1 recycled (ttl)")]
    assert admin_client.get("/live/series/?pool=nothing&span=3600").json()["columns"] == {}


@pytest.mark.django_db
def test_a_long_span_ends_with_the_minutes_that_no_quarter_has_yet() -> None:
    minute(0, seconds=QUARTER, ok=450)
    for number in (15, 16, 17):
        minute(number, ok=120)
    columns = history.columns("p", 86_400, NOON + timedelta(minutes=18))
    assert columns["ok_rate"] == [0.5, 2.0]
    PoolPeriod.objects.filter(seconds=QUARTER).delete()
    assert history.columns("p", 86_400, NOON + timedelta(minutes=18))["ok_rate"] == [2.0]


def live(*moments: float) -> dict[str, list[float | None]]:
    columns: dict[str, list[float | None]] = {name: [1.0] * len(moments) for name in COLUMNS}
    return {**columns, "at": list(moments)}


@pytest.mark.django_db
def test_a_short_chart_fills_what_nobody_watched_from_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    now = NOON + timedelta(minutes=6)
    monkeypatch.setattr("snakepit.pools.dashboard.series.utc_now", lambda: now)
    begin = NOON.timestamp()
    for number in (2, 3, 4, 5):
        minute(number, ok=60 * number)
    seen = [begin + 90 + second for second in range(0, 61, 2)]  # from 1:30 to 2:30, and nothing after
    columns = with_past(live(*seen), "p")
    found = list(zip(columns["at"], columns["ok_rate"], strict=True))
    at = [moment for moment, _ in found if moment is not None]
    assert at == sorted(at)
    after = [(moment - begin, rate) for moment, rate in found if moment is not None and moment > seen[-1]]
    rates = [rate for _, rate in after if rate is not None]
    assert rates[:2] == [2.0, 2.0], "the rest of a minute that was half watched"
    assert set(rates) == {2.0, 3.0, 4.0, 5.0}
    assert after[-1][0] > 355, "until now"
    between = dict(found)
    assert between[max(moment for moment in at if moment < begin + 180)] is None  # no slope between two minutes


@pytest.mark.django_db
def test_a_broker_that_restarts_within_a_minute_has_no_worker_twice() -> None:
    minute(0)
    PoolPeriod.objects.update(at=NOON + timedelta(seconds=20))  # until the stop; from the start:
    PoolPeriod.objects.create(
        node="n", pool="p", seconds=60, at=NOON + timedelta(seconds=40), ok=60, ready=2.0, busy=2.0
    )
    columns = history.columns("p", 3600, NOON + timedelta(minutes=6))
    assert (columns["at"], columns["ready"], columns["ok_rate"]) == ([NOON.timestamp() + 20], [2.0], [3.0])


@pytest.mark.django_db
def test_a_chart_begins_when_the_broker_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snakepit.pools.dashboard.series.utc_now", lambda: NOON + timedelta(minutes=4))
    start = NOON + timedelta(seconds=90)
    for at in (start, NOON + timedelta(seconds=120)):
        PoolPeriod.objects.create(node="n", pool="p", seconds=MINUTE, at=at, ok=60)
    columns = history.columns("p", 3600, NOON + timedelta(minutes=4))
    assert columns["at"] == [start.timestamp(), start.timestamp() + 30]
    assert columns["ok_rate"] == [2.0, 1.0], "the calls of a minute that began late are of its seconds"
    columns = with_past({name: [] for name in COLUMNS}, "p")
    found = [(at - start.timestamp(), rate) for at, rate in zip(columns["at"], columns["ok_rate"], strict=True) if at]
    assert found == [(0, 2.0), (28, 2.0), (29, None), (30, 1.0), (88, 1.0), (89, None)]


@pytest.mark.django_db
def test_a_minute_in_which_a_broker_was_away_at_first_is_not_joined_to_the_one_before() -> None:
    minute(0)
    PoolPeriod.objects.create(node="n", pool="p", seconds=MINUTE, at=NOON + timedelta(seconds=90), ok=60)
    minute(2)
    PoolPeriod.objects.create(node="n", pool="p", seconds=MINUTE, at=NOON + timedelta(seconds=181), ok=60)
    columns = history.columns("p", 3600, NOON + timedelta(minutes=6))
    found = [None if at is None else at - NOON.timestamp() for at in columns["at"]]
    assert found == [0, 60, 90, 120, 181]
    assert columns["ok_rate"][:4] == [1.0, None, 2.0, 1.0]

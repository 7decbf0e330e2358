"""A Celery worker reconciles by itself where no tick of beat comes through."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError

from snakepit.pools import tasks
from snakepit.pools.jobs import fallback_reconciler, reconciler
from snakepit.pools.jobs.fallback_reconciler import FallbackReconciler

pytestmark = pytest.mark.django_db
WITHIN = 30.0  # a bound for a machine under load, never a wait


class Rounds:
    """In place of the reconciler: counts the rounds, and fails the first time."""

    def __init__(self) -> None:
        self.count = 0
        self.checked_first = False
        self.two = threading.Event()

    def check_clock(self) -> bool:
        self.checked_first = self.count == 0
        raise OperationalError("away")

    def reconcile(self) -> dict[str, int]:
        self.count += 1
        if self.count == 1:
            raise OperationalError("away")
        self.two.set()
        return {"freed": 1}


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Rounds:
    made = Rounds()
    monkeypatch.setattr(reconciler, "reconcile", made.reconcile)
    monkeypatch.setattr(reconciler, "check_clock", made.check_clock)
    return made


@pytest.fixture
def started() -> Iterator[FallbackReconciler]:
    made = FallbackReconciler()
    yield made
    made.leave()
    for thread in threading.enumerate():
        if thread.name == "snakepit-reconcile":
            thread.join(WITHIN)


def test_a_silent_beat_is_replaced_also_after_an_error(
    settings: Any, rounds: Rounds, started: FallbackReconciler
) -> None:
    settings.SNAKEPIT = {"RECONCILE_INTERVAL": 0.1}
    started.start()
    assert rounds.two.wait(WITHIN)
    assert rounds.checked_first


def test_the_fallback_stays_idle_while_beat_ticks(
    settings: Any, rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SNAKEPIT = {"RECONCILE_INTERVAL": 10.0}
    clock = iter([0.0, 100.0, 101.0])
    monkeypatch.setattr(fallback_reconciler, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    made = FallbackReconciler()
    rounds.count = 1
    made.tick()
    assert made._left() == pytest.approx(11.5)


def test_the_tick_of_beat_counts_as_one(rounds: Rounds) -> None:
    rounds.count = 1
    assert tasks.reconcile() == {"freed": 1}

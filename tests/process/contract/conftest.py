"""Bounds in time that pass while a machine stands still: a suite that is not about them has none."""

from __future__ import annotations

import pytest

from snakepit.pools.client import connection, session
from tests.brokers import PATIENCE


@pytest.fixture(autouse=True)
def patient_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """An order is sent once the broker has shown that it answers."""
    monkeypatch.setattr(connection, "ORDER_CHECK", PATIENCE)


@pytest.fixture
def patient_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker has its time to end a session in order, and `close` waits for that."""
    monkeypatch.setattr(session, "GOODBYE", PATIENCE)
    monkeypatch.setattr(session, "END_GRACE", PATIENCE)

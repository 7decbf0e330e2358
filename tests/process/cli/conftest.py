"""A broker for the command line to speak to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit.pools.client import connect
from tests.process.contract.fake_broker import FakeBroker


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBroker]:
    broker = FakeBroker(tmp_path).start()
    monkeypatch.setenv("SNAKEPIT_ADDRESS", broker.address)
    yield broker
    connect(broker.address).close()
    broker.stop()

"""Caches the newest report for some seconds, for pages that ask often; one examination runs at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.diagnostics.doctor import examine
from snakepit.pools.diagnostics.finding import DoctorReport

KEPT = 10.0  # seconds for which a report is reused

_lock = threading.Lock()
_kept: tuple[float, str, DoctorReport] | None = None


def latest(status: Callable[[], BrokerStatus], address: str) -> DoctorReport:
    """A report that is at most ten seconds old. A new one takes seconds: call it in a thread.

    `status` asks the broker at `address` and may raise a BrokerError.
    """
    global _kept
    with _lock:  # other callers wait for this report instead of making their own
        if _kept is None or _kept[1] != address or time.monotonic() - _kept[0] > KEPT:
            report = examine(status, address)
            _kept = time.monotonic(), address, report
        return _kept[2]


def forget() -> None:
    """Drop the cached report."""
    global _kept
    with _lock:
        _kept = None

"""The newest report of this process, for pages that ask often: one examination at a time, kept for some seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.diagnostics.doctor import examine
from snakepit.pools.diagnostics.finding import DoctorReport

KEPT = 10.0  # seconds that a report is good for

_lock = threading.Lock()
_kept: tuple[float, str, DoctorReport] | None = None


def latest(status: Callable[[], BrokerStatus], address: str) -> DoctorReport:
    """A report that is at most ten seconds old. Takes seconds where a new one is due: call it in a thread.

    `status` asks the broker at `address` for its snapshot and may raise a BrokerError.
    """
    global _kept
    with _lock:  # whoever comes meanwhile waits for this one instead of asking everybody again
        if _kept is None or _kept[1] != address or time.monotonic() - _kept[0] > KEPT:
            report = examine(status, address)
            _kept = time.monotonic(), address, report
        return _kept[2]


def forget() -> None:
    """The next question is answered anew."""
    global _kept
    with _lock:
        _kept = None

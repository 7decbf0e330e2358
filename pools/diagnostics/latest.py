"""Caches the newest reports for some seconds, for pages that ask often; one examination of a kind runs at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from django.db import connections

from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.diagnostics import security
from snakepit.pools.diagnostics.doctor import examine
from snakepit.pools.diagnostics.finding import DoctorReport

KEPT = 10.0  # seconds for which a report is reused


class _Newest:
    """The newest report of one kind, and what it is of."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: tuple[float, str, DoctorReport] | None = None

    def get(self, of: str, make: Callable[[], DoctorReport]) -> DoctorReport:
        with self._lock:  # other callers wait for this report instead of making their own
            if self._kept is None or self._kept[1] != of or time.monotonic() - self._kept[0] > KEPT:
                report = make()
                self._kept = time.monotonic(), of, report
            return self._kept[2]

    def forget(self) -> None:
        with self._lock:
            self._kept = None


_doctor, _security = _Newest(), _Newest()


def latest(status: Callable[[], BrokerStatus], address: str) -> DoctorReport:
    """A report that is at most ten seconds old. A new one takes seconds: call it in a thread.

    `status` asks the broker at `address` and may raise a BrokerError.
    """
    return _doctor.get(address, lambda: examine(status, address))


def latest_security(status: Callable[[], BrokerStatus], address: str) -> DoctorReport:
    """The security checklist, as `latest`. It covers what this process may read."""

    def make() -> DoctorReport:
        try:
            return security.examine(status)
        finally:  # the thread belongs to no request, so Django would leave its connection open
            connections.close_all()

    return _security.get(address, make)


def forget() -> None:
    """Drop the cached reports."""
    _doctor.forget()
    _security.forget()

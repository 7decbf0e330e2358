"""The broker's status for a request: from now, or the last one of this process while the broker does not answer.

    request ─▶ ask() ─▶ broker, for PATIENCE at most ─▶ Snapshot
                  └▶ no answer: the last Snapshot, with its age, and the trouble and its time

A web process without an earlier status raises the typed error: 503 `broker_unreachable`. All pages and routes of a
process share this place, so that they agree since when the broker does not answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from snakepit.pools.broker.errors import NOT_STARTED, BrokerError, BrokerUnreachable, DeadlineExceeded, is_silent
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.client import shared
from snakepit.pools.web.errors import seen_from_outside

if TYPE_CHECKING:
    from snakepit.pools.client import Client

PATIENCE = 0.8  # seconds that the broker may take for the answer to a request
BRIEF = 0.2  # the same while the broker is known to be away: a page shows the last status instead of waiting
PATIENT_EVERY = 10.0  # seconds between two full waits for a silent broker: an overloaded one answers, but late
UNSEEN = 60.0  # seconds without a question, after which a missed answer is a new trouble
PAUSE = 1.0  # seconds after a missed answer in which a broker that is away is not asked again
SILENT = "silent"  # a broker runs here, but it does not answer in time
ABSENT = "absent"  # no broker listens
OTHER = "other"
AWAY = (SILENT, ABSENT)  # each question takes its whole time: a client waits for an absent broker to start


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the broker does not answer, and since when."""

    message: str
    kind: str  # SILENT, ABSENT, or OTHER such as a wrong token
    since: float  # seconds since the epoch: the first question without an answer


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A status and its time."""

    status: BrokerStatus
    at: float  # seconds since the epoch
    trouble: Trouble | None = None  # None: it is from now

    def plain(self) -> dict[str, Any]:
        """Its age, for an answer of the API."""
        return {
            "at": self.at,
            "age": round(max(0.0, time.time() - self.at), 3),
            "stale": self.trouble is not None,
            "reason": self.trouble.message if self.trouble else "",
            "since": self.trouble.since if self.trouble else None,
        }


class LastStatus:
    """The newest status of this process. Safe to use from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: Client | None = None
        self._last: Snapshot | None = None
        self._trouble: Trouble | None = None
        self._error: BrokerError | None = None
        self._missed_at = self._waited_at = float("-inf")

    def ask(self) -> Snapshot:
        """Ask the broker. Raises BrokerUnreachable if it does not answer and never did."""
        client = self._client()
        if self._is_known_away():
            return self._stale()
        try:
            return self.record(client.status(timeout=self.patience()))
        except BrokerError as error:
            self.missed(error)
            return self._stale()

    async def aask(self) -> Snapshot:
        """As `ask`, for an event loop."""
        client = self._client()
        if self._is_known_away():
            return self._stale()
        try:
            return self.record(await client.astatus(timeout=self.patience()))
        except BrokerError as error:
            self.missed(error)
            return self._stale()

    def patience(self) -> float:
        """Seconds to wait for the next answer: PATIENCE, or BRIEF while the broker is away."""
        now, trouble = time.monotonic(), self._trouble
        if trouble is not None and trouble.kind in AWAY and now - self._waited_at < PATIENT_EVERY:
            return BRIEF
        self._waited_at = now
        return PATIENCE

    def record(self, status: BrokerStatus) -> Snapshot:
        """Keep a status that has just arrived."""
        with self._lock:
            self._last, self._error, self._trouble = Snapshot(status, time.time()), None, None
            return self._last

    def missed(self, error: BrokerError) -> Trouble:
        """Note that the broker did not answer; `since` stays the time of the first question without an answer."""
        with self._lock:
            last, now, kind = self._trouble, time.monotonic(), kind_of(error)
            if last is not None and kind == OTHER and isinstance(error, BrokerUnreachable):
                kind = last.kind  # of a connection that was lost meanwhile; the next answer has the reason
            # A frozen broker that was ended is another trouble; and it may have answered while nothing asked.
            goes_on = last is not None and last.kind == kind and now - self._missed_at < UNSEEN
            since = last.since if last is not None and goes_on else time.time()
            self._error, self._missed_at = error, now
            self._trouble = Trouble(seen_from_outside(error).message, kind, since)
            return self._trouble

    def forget(self) -> None:
        """Drop what is kept; tests of one process have many brokers."""
        with self._lock:
            self._of = self._last = self._trouble = self._error = None

    def _client(self) -> Client:
        client = shared.client()
        if self._of is not client:
            if self._of is not None:  # another client asks another broker; before the first, pages may have recorded
                self.forget()
            self._of = client
        return client

    def _is_known_away(self) -> bool:
        """Whether a broker that is away was asked within the last second: one page waits for it, not each in turn."""
        trouble = self._trouble
        return trouble is not None and trouble.kind in AWAY and time.monotonic() - self._missed_at < PAUSE

    def _stale(self) -> Snapshot:
        with self._lock:
            known, error, trouble = self._last, self._error, self._trouble
        if known is not None:
            return replace(known, trouble=trouble)
        raise unanswered(error or BrokerUnreachable(), trouble)


def kind_of(error: BrokerError) -> str:
    """Why a question has no answer."""
    if is_silent(error):
        return SILENT
    return ABSENT if isinstance(error, BrokerUnreachable) and error.outcome == NOT_STARTED else OTHER


def unanswered(error: BrokerError, trouble: Trouble | None = None) -> BrokerError:
    """The error of a question that changes nothing: 503 with one code if the broker does not answer in time."""
    shown = seen_from_outside(error)
    if not isinstance(shown, BrokerUnreachable | DeadlineExceeded):
        return shown
    details = {**shown.details, **({"since": trouble.since} if trouble else {})}
    return BrokerUnreachable(shown.message, outcome=NOT_STARTED, details=details, retry_after=PAUSE)


@contextmanager
def in_time() -> Iterator[None]:
    """Raise 503 `broker_unreachable` for a question that only the broker can answer, and does not answer in time."""
    try:
        yield
    except BrokerError as error:
        raise unanswered(error) from error


def ask_in_time(pool: str = "") -> BrokerStatus:
    """The present status, never an old one, for what judges it. Raises BrokerUnreachable."""
    with in_time():
        return shared.client().status(pool, timeout=PATIENCE)


last_status = LastStatus()

"""The open streams of this process: their number by caller, and one check of rights for all streams of a caller.

A check of each stream on its own would cost more than the streams do.
"""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any

from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError

from snakepit.pools.api.auth import Caller
from snakepit.pools.broker.errors import LimitReached
from snakepit.pools.broker.quotas import reached
from snakepit.pools.jobs.leases import db_unit

PAUSE = 5.0  # seconds until a refused caller should try again
Identity = tuple[int, str, frozenset[str], frozenset[str] | None]  # key, owner, permissions and pools


class _Caller:
    """The streams of one caller with the same rights."""

    def __init__(self) -> None:
        self.streams = 0
        self.checked = time.monotonic()
        self.checking = False
        self.allowed = True


class OpenStream:
    """One stream, from its admission to its end."""

    def __init__(self, streams: OpenStreams, caller: Caller) -> None:
        self.caller = caller
        self._streams = streams
        self._open = True

    def close(self) -> None:
        """Count the stream as ended; more than once does nothing."""
        if self._open:
            self._open = False
            self._streams.left(self.caller)

    def close_with(self, response: Any) -> None:
        """End with this response: its content may never be read, and then no `finally` runs."""
        weakref.finalize(response, self.close)

    async def allowed(self, fresh: float) -> bool:
        """Whether the caller has its rights, by a check in the last `fresh` seconds that all its streams share."""
        found = self._streams.of(self.caller)
        now = time.monotonic()
        if not found.checking and found.allowed and now - found.checked >= fresh:
            found.checking = True
            try:
                found.allowed = await sync_to_async(_still_allowed)(self.caller)
            finally:
                found.checked, found.checking = time.monotonic(), False
        return found.allowed


class OpenStreams:
    """All open streams of the API and of job pages in this process."""

    def __init__(self) -> None:
        self._callers: dict[Identity, _Caller] = {}
        self._lock = threading.Lock()

    def enter(self, caller: Caller, most: int) -> OpenStream:
        """Count a stream, or raise LimitReached. `most`: the streams of this process."""
        with self._lock:
            for kind, name, limits, _ in caller.quota.scopes():
                if limits.streams and self._count(kind, caller) >= limits.streams:
                    raise reached(kind, name, "streams", limits.streams, PAUSE)
            if sum(one.streams for one in self._callers.values()) >= most:
                message = f"This web process has {most} open streams, the limit of SNAKEPIT['STREAMS_LIMIT']."
                raise LimitReached(
                    message, retry_after=PAUSE, details={"limit": "streams", "value": most, "of": "process"}
                )
            self._callers.setdefault(_identity(caller), _Caller()).streams += 1
        return OpenStream(self, caller)

    def left(self, caller: Caller) -> None:
        identity = _identity(caller)
        with self._lock:
            found = self._callers[identity]
            found.streams -= 1
            if not found.streams:
                del self._callers[identity]

    def of(self, caller: Caller) -> _Caller:
        return self._callers[_identity(caller)]

    def count(self, kind: str, caller: Caller) -> int:
        """The open streams of this `key`, or of its `owner` with all keys and sessions."""
        with self._lock:
            return self._count(kind, caller)

    def _count(self, kind: str, caller: Caller) -> int:
        at, wanted = (0, caller.key) if kind == "key" else (1, caller.owner)
        return sum(one.streams for identity, one in self._callers.items() if identity[at] == wanted)


def _identity(caller: Caller) -> Identity:
    return caller.key, caller.owner, caller.permissions, caller.pools


def _still_allowed(caller: Caller) -> bool:
    try:
        with db_unit():
            return caller.still_allowed()
    except (OperationalError, InterfaceError):
        return True  # calls go on while the database is away


open_streams = OpenStreams()

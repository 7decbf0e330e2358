"""Looks API keys up for the listener: in a thread, with a cache of some seconds.

A revoked key is refused FRESH seconds later at most. A database that does not answer leaves known keys valid for STALE
seconds: calls need no database. Wrong keys are cached too, so that many requests with one cause one query.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from snakepit.pools.adapters.network.identity import KeySource, NetworkCaller
from snakepit.pools.broker.errors import BrokerError, DatabaseUnavailable, QueueFull, Unauthenticated

FRESH = 3.0  # seconds
STALE = 60.0
KNOWN = 10_000  # remembered keys
MOST_WAITING = 256  # lookups that wait for a thread; beyond it a caller shall try again
LOOKUP_SECONDS = 5.0  # a database that takes longer does not answer
KNOWN_SECONDS = 0.5  # the same for a key that was valid before
WRONG = "The API key is unknown, expired or revoked."

logger = logging.getLogger("snakepit.listener")


@dataclass(slots=True)
class _Known:
    caller: NetworkCaller | None
    at: float  # of the lookup
    fresh_until: float


class KeyCache:
    """The callers of keys that were looked up. Used on the loop's thread."""

    def __init__(self, source: KeySource, monotonic: Callable[[], float]) -> None:
        self._source = source
        self._monotonic = monotonic
        self._known: dict[bytes, _Known] = {}  # by the digest of the secret, the oldest lookup first
        self._lookups: dict[bytes, asyncio.Task[NetworkCaller | None]] = {}
        self._threads = ThreadPoolExecutor(2, "snakepit-keys")  # a database that hangs must not take the loop's own

    async def find(self, secret: str) -> NetworkCaller:
        """The caller of a key; raises Unauthenticated, or the error of a database that does not answer."""
        mark = hashlib.sha256(secret.encode()).digest()
        known, now = self._known.get(mark), self._monotonic()
        caller = known.caller if known else None
        if known is None or now >= known.fresh_until:
            usable = known is not None and caller is not None and now - known.at < STALE
            try:
                caller = await self._checked(mark, secret, KNOWN_SECONDS if usable else LOOKUP_SECONDS)
            except BrokerError:
                if known is None or not usable:
                    raise
                known.fresh_until = now + FRESH  # the next call need not wait for the database too
        if caller is None:
            raise Unauthenticated(WRONG)
        return caller

    async def _checked(self, mark: bytes, secret: str, patience: float) -> NetworkCaller | None:
        """Ask the source, once for all requests that wait for the same key."""
        task = self._lookups.get(mark)
        if task is None:
            if len(self._lookups) >= MOST_WAITING:
                raise QueueFull("too many API keys wait to be checked; try again", retry_after=1.0)
            task = self._lookups[mark] = asyncio.get_running_loop().create_task(self._ask(mark, secret))
            task.add_done_callback(lambda ended: self._ended(mark, ended))
        try:
            return await asyncio.wait_for(asyncio.shield(task), patience)
        except TimeoutError:
            message = f"The API key was not checked within {patience:g} s: the database does not answer."
            raise DatabaseUnavailable(message, outcome="not_started") from None

    def _ended(self, mark: bytes, task: asyncio.Task[NetworkCaller | None]) -> None:
        self._lookups.pop(mark, None)
        if not task.cancelled():
            task.exception()  # all that waited may have given up; asyncio must not warn then

    async def _ask(self, mark: bytes, secret: str) -> NetworkCaller | None:
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, self._source.find, secret)
        except Exception as error:
            logger.warning("an API key was not checked: %s", error)
            message = "The API key cannot be checked now: the database does not answer."
            raise DatabaseUnavailable(message, outcome="not_started") from error
        self._known.pop(mark, None)
        now = self._monotonic()
        self._known[mark] = _Known(found, now, now + FRESH)
        if len(self._known) > KNOWN:
            del self._known[next(iter(self._known))]
        return found

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

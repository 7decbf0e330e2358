"""The network connections of a broker: their number, the peer of each, and the refusals.

A connection is counted from its accept on. It is refused before its handshake when there are too many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from snakepit.pools.adapters.network.identity import CertificateRights, NetworkCaller, find_certificate
from snakepit.pools.adapters.network.keys import KeyCache
from snakepit.pools.broker.errors import BrokerError, Unauthenticated
from snakepit.workers.transport.frames import CheapFrames
from snakepit.workers.transport.keepalive import Keepalive

BEARER = "bearer "
PINGS = 1000  # a second, and SETTINGS; gRPC measures the bandwidth with pings
OTHERS = 10  # times as many other frames without content a second: a client that reads much returns its window
CANCELS = 20  # times the most streams of a connection, a second
NO_KEY = (
    "the metadata 'authorization: Bearer snk_...' with an API key is missing, and the connection has no client "
    "certificate with rights in LISTEN_CERTIFICATES"
)


@dataclass(slots=True)
class Counts:
    """What the listener counted since the broker started."""

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # by reason


class ConnectionLimits:
    """Limits of connections: of all, and of those from one host. Pure.

    >>> limits = ConnectionLimits(most=3, most_of_host=2)
    >>> [limits.enter(host) for host in ("a", "a", "a", "b", "c")]
    ['', '', 'too_many_of_host', '', 'too_many']
    >>> limits.leave("a")
    >>> limits.enter("c")
    ''
    """

    def __init__(self, most: int, most_of_host: int) -> None:
        self._most, self._most_of_host = most, most_of_host
        self._hosts: Counter[str] = Counter()

    def enter(self, host: str) -> str:
        """Count a connection; returns why it is refused, empty if it is not."""
        if self._hosts[host] >= self._most_of_host:
            return "too_many_of_host"
        if self._hosts.total() >= self._most:
            return "too_many"
        self._hosts[host] += 1
        return ""

    def leave(self, host: str) -> None:
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]


class FrameBudget:
    """How many frames of a kind a peer may send: so many a second, and a burst of twice as many. Pure.

    >>> budget = FrameBudget()
    >>> [budget.take(0.0, rate=1) for _ in range(3)], budget.take(1.0, rate=1), budget.take(1.0, rate=9, count=15)
    ([True, True, False], False, True)
    """

    def __init__(self) -> None:
        self._at = 0.0
        self._used = 0.0

    def take(self, now: float, rate: float, count: int = 1) -> bool:
        """Count frames; False: there are too many."""
        self._used = max(0.0, self._used - rate * (now - self._at)) + count
        self._at = now
        return self._used <= 2 * rate


class NetworkPeer:
    """One accepted connection, and the Peer of its requests."""

    def __init__(self, host: str, keys: KeyCache, rights: Mapping[str, CertificateRights], key_share: float) -> None:
        self.host = host
        self._keys = keys
        self._rights = rights
        self._key_share = key_share
        self.transport: Any = None
        self.keepalive: Keepalive | None = None
        self.login_by = 0.0  # loop time; 0: it has authenticated itself
        self.certificate: Mapping[str, Any] = {}
        self.der = b""
        self._of_certificate: NetworkCaller | None = None
        self.known = False  # it has shown rights
        self.refusals = 0  # requests without rights, as long as it has shown none
        self._cancels, self._questions, self._others = FrameBudget(), FrameBudget(), FrameBudget()

    def opened(self, transport: Any, keepalive: Keepalive, login_by: float) -> None:
        """Take the transport, and the client's certificate where TLS has verified one."""
        self.transport, self.keepalive, self.login_by = transport, keepalive, login_by
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and (certificate := tls.getpeercert()):
            self.certificate, self.der, self.login_by = certificate, tls.getpeercert(binary_form=True), 0.0
            if name := find_certificate(certificate, self._rights):
                self._of_certificate = self._rights[name].caller(name, self._key_share)
                self.known = True

    def find_flood(self, now: float, streams: int, frames: CheapFrames) -> str:
        """Count frames that cost the peer nothing; returns what it does too fast, empty: nothing.

        Two small frames of the peer, a request and its cancel, cost the broker a task. So a peer that has shown no
        rights may cancel few; any other one, what a client does whose calls all miss their deadline. A read has up to
        20,000 frames without content, and to read them takes as long as a hundred calls.
        """
        cancels = streams * (CANCELS if self.known else 1)
        others = PINGS * (OTHERS if self.known else 1)
        if frames.cancels and not self._cancels.take(now, cancels, frames.cancels):
            return "cancels requests"
        if frames.questions and not self._questions.take(now, PINGS, frames.questions):
            return "sends pings or settings"
        if frames.others and not self._others.take(now, others, frames.others):
            return "sends frames without content"
        return ""

    @property
    def is_verified(self) -> bool:
        """Whether TLS has verified a client certificate."""
        return bool(self.certificate)

    async def rights(self, metadata: Mapping[str, Any]) -> NetworkCaller:
        """The caller of a request: that of its API key, else that of the connection's certificate."""
        try:
            caller = await self._caller(metadata)
        except Unauthenticated:
            self.refusals += not self.known
            raise
        self.known = True
        return caller

    async def _caller(self, metadata: Mapping[str, Any]) -> NetworkCaller:
        given = metadata.get("authorization", "")
        if not isinstance(given, str) or not given:
            if self._of_certificate is not None:
                return self._of_certificate
            raise Unauthenticated(NO_KEY)
        if not given.lower().startswith(BEARER):
            raise Unauthenticated("The metadata 'authorization' must be `Bearer snk_...`.")
        caller = await self._keys.find(given[len(BEARER) :].strip())
        self.login_by = 0.0
        return caller

    async def may_see(self, metadata: Mapping[str, Any], pool: str) -> bool:
        """Whether a request may read the health of a pool: gRPC's own health checks carry no key.

        The holder of a verified client certificate may. Any other peer needs a key that may use the pool.
        """
        if not metadata.get("authorization") and self._of_certificate is None:
            return self.is_verified
        try:
            return (await self.rights(metadata)).may_use(pool)
        except BrokerError:
            return False

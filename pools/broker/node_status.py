"""What a broker reports of its process and of its network addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LATE = 0.2  # share of the life of a revocation list
CERTIFICATE_LATE = 1 / 3  # share of the life of a certificate: cert-manager renews when a third is left
CERTIFICATE_WARNING = 14 * 86_400.0  # seconds: the warning comes no earlier than that


def ends_soon(issued: float, expires: float, now: float) -> bool:
    """Whether a certificate should have been renewed: less than a third of its life is left, and less than 14 days.

    >>> day = 86_400.0
    >>> ends_soon(0, 90 * day, 75 * day), ends_soon(0, 90 * day, 77 * day)  # of 90 days, 15 and 13 are left
    (False, True)
    >>> ends_soon(0, day, 0.5 * day), ends_soon(0, day, 0.7 * day)  # one for a day
    (False, True)
    """
    return expires - now < min(CERTIFICATE_WARNING, CERTIFICATE_LATE * (expires - issued))


@dataclass(frozen=True, slots=True)
class ListenerStatus:
    """One network address of the broker. The figures of connections are those of all its addresses together."""

    address: str
    tls: str  # "mutual", "server" (clients have an API key) or "none"
    certificate_expires: float  # seconds since the epoch; 0: no TLS
    problem: str  # why changed certificates are not in force; empty: they are
    connections: int
    accepted: int  # since the broker started
    refused: Mapping[str, int]  # connections and handshakes, by reason
    lists_expire: float = 0.0  # of its revocation lists, the end of the first, seconds since the epoch; 0: none
    lists_issued: float = 0.0  # when that list was written
    certificate_issued: float = 0.0  # from when on it is valid
    authorities_expire: float = 0.0  # of the certificates in `client_ca`, the next end; 0: none has an end
    authorities_issued: float = 0.0  # from when on that one is valid

    def lists_end_soon(self, now: float) -> bool:
        """Whether a revocation list has less than a fifth of its life left: a new one is due before that."""
        return bool(self.lists_expire) and self.lists_expire - now < LATE * (self.lists_expire - self.lists_issued)


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The broker's process and whether it takes calls."""

    name: str
    version: str
    pid: int
    address: str
    started_at: float  # seconds since the epoch
    uptime: float
    draining: bool  # it takes no new calls: it stops, or an operator drained it
    clock: str  # what drives the lifecycle: "beat", "waiting" (no sweep yet) or "lifecycle clock missing"
    loop_lag: float  # seconds that the event loop was late recently, smoothed
    python: str
    sessions: int  # open sessions of clients
    problems: tuple[str, ...]  # definitions that were refused, and why
    drain_since: float  # when an operator drained the node, seconds since the epoch; 0: no operator did
    drain_actor: str
    drain_reason: str
    labels: tuple[str, ...] = ()  # key=value; pools are placed by them
    advertised: tuple[str, ...] = ()  # addresses by which other hosts reach it
    listeners: tuple[ListenerStatus, ...] = ()

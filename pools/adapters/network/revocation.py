"""Reads the file of certificate revocation lists (CRLs), the setting `crl` of LISTEN_TLS.

TLS itself checks the certificate of a new connection. This finds the open connections of a certificate that a new list
revokes, and when the first list expires: from then on TLS accepts no certificate of its authority.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from snakepit.pools.adapters.network.der import (
    GENERALIZED_TIME,
    INTEGER,
    SEQUENCE,
    UTC_TIME,
    element,
    elements,
    moment,
    number,
)

BEGIN, END = "-----BEGIN X509 CRL-----", "-----END X509 CRL-----"
Revoked = frozenset[tuple[bytes, int]]  # the issuer, encoded, and the serial number of each certificate


@dataclass(frozen=True, slots=True)
class RevocationLists:
    """The content of the lists of one file."""

    revoked: Revoked = frozenset()
    expires: float = 0.0  # seconds since the epoch, of the list that expires first; 0: none expires
    issued: float = 0.0  # when that list was written

    def problem(self, path: str, now: float) -> str:
        """What is wrong with the lists now; empty: nothing."""
        if not self.expires or now < self.expires:
            return ""
        return f"LISTEN_TLS: crl {path}: a list has expired, so no certificate of its authority is accepted; renew it"


def read_lists(text: str) -> RevocationLists:
    """Read a PEM file of lists; raises ValueError.

    >>> read_lists("")
    Traceback (most recent call last):
        ...
    ValueError: it has no list
    """
    blocks = [part.partition(END)[0] for part in text.split(BEGIN)[1:]]
    if not blocks:
        raise ValueError("it has no list")
    revoked: set[tuple[bytes, int]] = set()
    times = []
    for block in blocks:
        issuer, serials, issued, expires = _list(base64.b64decode(block))
        revoked |= {(issuer, serial) for serial in serials}
        times += [(expires, issued)] if expires else []
    return RevocationLists(frozenset(revoked), *min(times, default=(0.0, 0.0)))


def _list(data: bytes) -> tuple[bytes, list[int], float, float]:
    """The issuer of a list, the serial numbers in it, when it was written, and when it expires (0: never)."""
    _, signed, _ = element(data)
    _, inner, _ = element(signed)
    fields = list(elements(inner))
    if fields[0][0] == INTEGER:  # the version
        del fields[0]
    issuer = fields[1][1]  # after the algorithm
    issued, rest = moment(*fields[2]), fields[3:]
    expires = moment(*rest.pop(0)) if rest and rest[0][0] in (UTC_TIME, GENERALIZED_TIME) else 0.0
    entries = elements(rest[0][1]) if rest and rest[0][0] == SEQUENCE else ()
    return issuer, [number(element(entry)[1]) for _, entry in entries], issued, expires

"""Reads DER, the encoding of certificates: the standard library shows only the certificate of a peer.

>>> element(bytes([2, 1, 5, 9]))
(2, b'\\x05', b'\\t')
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

INTEGER, SEQUENCE, VERSION, UTC_TIME, GENERALIZED_TIME = 0x02, 0x30, 0xA0, 0x17, 0x18  # tags


def element(data: bytes) -> tuple[int, bytes, bytes]:
    """Split off the first element: its tag, its content, and what follows. Raises ValueError."""
    if len(data) < 2:
        raise ValueError("not DER: an element is missing")
    size, start = data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    if len(data) < start + size:
        raise ValueError("not DER: an element is cut off")
    return data[0], data[start : start + size], data[start + size :]


def first_element(data: bytes) -> bytes:
    """The first element as it is encoded, without what follows. Raises ValueError."""
    return data[: len(data) - len(element(data)[2])]


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The tag and the content of each element."""
    while data:
        tag, content, data = element(data)
        yield tag, content


def moment(tag: int, content: bytes) -> float:
    """A time in seconds since the epoch."""
    text = content.decode()
    if tag == UTC_TIME:
        text = ("19" if text >= "5" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def number(content: bytes) -> int:
    return int.from_bytes(content, "big", signed=True)


def validity(certificate: bytes) -> tuple[float, float]:
    """From when to when a certificate is valid, in seconds since the epoch."""
    begins, ends = elements(_fields(certificate)[3][1])  # serial number, algorithm, issuer, validity
    return moment(*begins), moment(*ends)


def issuer_and_serial(certificate: bytes) -> tuple[bytes, int]:
    """The issuer of a certificate, encoded, and its serial number, which is unique for the issuer."""
    fields = _fields(certificate)
    return fields[2][1], number(fields[0][1])


def _fields(certificate: bytes) -> list[tuple[int, bytes]]:
    """The fields of a certificate from its serial number on."""
    _, signed, _ = element(certificate)
    _, inner, _ = element(signed)
    found = list(elements(inner))
    return found[1:] if found[0][0] == VERSION else found

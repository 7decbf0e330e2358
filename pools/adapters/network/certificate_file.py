"""Reads PEM files of certificates, and when these begin and end."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from snakepit.pools.adapters.network.der import first_element, validity

PEM_ENCODING = "latin-1"  # reads any byte: only the text around the certificates may be more than ASCII
BLOCK = re.compile(r"-----BEGIN ((?:X509 |TRUSTED )?)CERTIFICATE-----(.*?)-----END \1CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CertificateFile:
    """The first certificate of a file of this host."""

    path: str
    issued: float = 0.0  # from when on it is valid, seconds since the epoch
    expires: float = 0.0
    trouble: str = ""  # why it cannot be read; empty: it can


def read_certificate(path: str) -> CertificateFile:
    try:
        return CertificateFile(path, *validity(certificates_of(path)[0]))
    except IndexError:
        return CertificateFile(path, trouble="it has no certificate")
    except (OSError, ValueError) as error:
        return CertificateFile(path, trouble=getattr(error, "strerror", None) or str(error))


def certificates_of(path: str) -> list[bytes]:
    """The certificates of a PEM file, in DER; raises OSError or ValueError."""
    blocks = BLOCK.findall(Path(path).read_text(PEM_ENCODING))
    return [first_element(base64.b64decode(text)) for _, text in blocks]  # OpenSSL's "trusted" ones have more elements


def next_end(certificates: Sequence[tuple[float, float]], now: float) -> tuple[float, float]:
    """Of certificates with begin and end, that which ends next; of ended ones the last, as old authorities may stay.

    >>> next_end([(0, 5), (0, 20), (0, 30)], now=10), next_end([(0, 5), (1, 6)], now=10), next_end([], now=10)
    ((0, 20), (1, 6), (0.0, 0.0))
    """
    by_end = sorted(certificates, key=lambda one: one[1])
    return next((one for one in by_end if one[1] > now), by_end[-1] if by_end else (0.0, 0.0))

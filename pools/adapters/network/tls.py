"""The listener's TLS: one context for new connections, made again when one of its files changes."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakepit.pools.adapters.network.certificate_file import PEM_ENCODING, certificates_of
from snakepit.pools.adapters.network.der import issuer_and_serial, validity
from snakepit.pools.adapters.network.revocation import RevocationLists, read_lists
from snakepit.pools.listening import load_key_pair, reason_of_file

Marks = tuple[tuple[int, int, int], ...]

logger = logging.getLogger("snakepit.listener")


class TlsError(Exception):
    """A file of LISTEN_TLS cannot be used."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files. `client_ca`: those that sign clients' certificates, or such certificates themselves.

    `crl`: the revocation lists of these authorities; with it, each authority needs one.
    """

    cert: str
    key: str
    client_ca: str = ""
    crl: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(path for path in (self.cert, self.key, self.client_ca, self.crl) if path)


@dataclass(frozen=True, slots=True)
class LoadedTls:
    """The content of the files at one moment."""

    context: ssl.SSLContext
    own: tuple[float, float]  # from when to when the broker's certificate is valid, seconds since the epoch
    trusted: frozenset[Any]  # DER of each certificate in `client_ca`, and the subject of each authority there
    lists: RevocationLists = field(default_factory=RevocationLists)
    authorities: tuple[tuple[float, float], ...] = ()  # the same of each certificate in `client_ca`


class ServerTls:
    """The present context. Files that cannot be read leave the last one in force, with `problem`."""

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self._problem = ""
        self._marks = _marks(files)
        self.loaded = load(files)

    @property
    def kind(self) -> str:
        return "mutual" if self.files.client_ca else "server"

    def problem(self, now: float) -> str:
        """What is wrong with the files; empty: nothing."""
        return self._problem or self.loaded.lists.problem(self.files.crl, now)

    def reload(self) -> frozenset[Any]:
        """Read changed files again; return the certificates and authorities that are not trusted any more."""
        marks = _marks(self.files)
        if marks == self._marks:
            return frozenset()
        before, self._marks = self.loaded, marks
        try:
            self.loaded = load(self.files)
        except TlsError as error:  # perhaps one file of a pair is written and the other is not yet
            self._problem = str(error)
            logger.warning("the certificates that were read before stay in force: %s", error)
            return frozenset()
        self._problem = ""
        logger.info("certificates were read again from %s", ", ".join(self.files.paths))
        revoked = self.loaded.lists.revoked - before.lists.revoked
        return (before.trusted - self.loaded.trusted) | revoked


def _marks(files: TlsFiles) -> Marks:
    found = []
    for path in files.paths:
        try:
            state = os.stat(path)
            found.append((state.st_mtime_ns, state.st_size, state.st_ino))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


def load(files: TlsFiles) -> LoadedTls:
    """Make a context of the files; raises TlsError, which names the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    context.num_tickets = 0  # a resumed session would skip the check of the client's certificate
    trusted: frozenset[Any] = frozenset()
    authorities: tuple[tuple[float, float], ...] = ()
    try:
        load_key_pair(context, files.cert, files.key)
        own = next(iter(map(validity, certificates_of(files.cert))), (0.0, 0.0))
    except (OSError, ValueError) as error:
        raise TlsError(f"LISTEN_TLS: cert {files.cert} and key {files.key}: {reason_of_file(error)}") from error
    if files.client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # one client's own certificate may be listed
        try:
            context.load_verify_locations(cafile=files.client_ca)
            listed = certificates_of(files.client_ca)
            trusted, authorities = _trusted(context, listed), tuple(map(validity, listed))
        except (OSError, ValueError) as error:
            raise TlsError(f"LISTEN_TLS: client_ca {files.client_ca}: {reason_of_file(error)}") from error
    return LoadedTls(context, own, trusted, _load_lists(context, files.crl), authorities)


def _load_lists(context: ssl.SSLContext, path: str) -> RevocationLists:
    """Have the context check the certificates of clients against these lists."""
    if not path:
        return RevocationLists()
    try:
        lists = read_lists(Path(path).read_text(PEM_ENCODING))
        context.load_verify_locations(cafile=path)
    except (OSError, ValueError, IndexError) as error:
        raise TlsError(f"LISTEN_TLS: crl {path}: {reason_of_file(error)}") from error
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return lists


def _trusted(context: ssl.SSLContext, listed: Sequence[bytes]) -> frozenset[Any]:
    subjects = {authority.get("subject") for authority in context.get_ca_certs()}
    return frozenset({*listed, *subjects})


def names_of(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in a certificate as ssl reports it: the SANs, then the common name.

    >>> names_of({"subject": ((("commonName", "web"),),), "subjectAltName": (("URI", "spiffe://shop/web"),)})
    ('spiffe://shop/web', 'web')
    """
    alternative = [value for _, value in certificate.get("subjectAltName", ())]
    common = [value for part in certificate.get("subject", ()) for name, value in part if name == "commonName"]
    return tuple(dict.fromkeys([*alternative, *common]))


def is_of(removed: frozenset[Any], certificate: Mapping[str, Any], der: bytes) -> bool:
    """Whether a client's certificate, or the authority that signed it, is among the removed or revoked ones."""
    return der in removed or certificate.get("issuer") in removed or issuer_and_serial(der) in removed

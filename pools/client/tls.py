"""TLS of a client: its files, and what a failed handshake or an alert of the broker means."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from snakepit.pools.broker.errors import BadRequest, CertificateRefused
from snakepit.pools.listening import load_key_pair, reason_of_file

VARIABLES = {
    "ca": "SNAKEPIT_TLS_CA",
    "cert": "SNAKEPIT_TLS_CERT",
    "key": "SNAKEPIT_TLS_KEY",
    "server_name": "SNAKEPIT_TLS_SERVER_NAME",
}
# Alerts of a broker that does not take the client's certificate, as OpenSSL names them.
ALERTS = {
    "CERTIFICATE_REQUIRED": "it requires a client certificate: pass tls=Tls(ca=..., cert=..., key=...)",
    "CERTIFICATE_EXPIRED": "the client's certificate has expired, or the broker's revocation list has",
    "CERTIFICATE_REVOKED": "the client's certificate is revoked",
    "UNKNOWN_CA": "the authority of the client's certificate is not in the broker's client_ca",
    "BAD_CERTIFICATE": "the client's certificate is not valid",
    "CERTIFICATE_UNKNOWN": "the client's certificate is not valid",
    "UNSUPPORTED_CERTIFICATE": "the client's certificate is of an unsupported kind",
    "DECRYPT_ERROR": "the client's key does not fit its certificate",
    "PROTOCOL_VERSION": "it takes TLS 1.3 and later",
}


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files of a client. They are read at each connect, so that changed files count without a restart."""

    ca: str = ""  # authorities of brokers' certificates; empty: those of the system
    cert: str = ""  # the client's certificate chain, for mutual TLS
    key: str = field(default="", repr=False)
    server_name: str = ""  # in the broker's certificate; empty: the host of the address

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Self | None:
        """None: no field is set."""
        given = {name: value for name, value in values.items() if value}
        return replace(cls(), **given) if given else None  # type: ignore[return-value, unused-ignore]

    @classmethod
    def of_environment(cls) -> Self | None:
        return cls.of({name: os.environ.get(variable, "") for name, variable in VARIABLES.items()})

    def context(self) -> ssl.SSLContext:
        """A context of the files; raises BadRequest, which names the file."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            if self.ca:
                made.load_verify_locations(cafile=self.ca)
            else:
                made.load_default_certs()
        except (OSError, ssl.SSLError) as error:
            raise BadRequest(f"tls: ca {self.ca}: {reason_of_file(error)}") from error
        if self.cert or self.key:
            try:
                load_key_pair(made, self.cert, self.key)
            except (OSError, ValueError) as error:
                raise BadRequest(f"tls: cert {self.cert} and key {self.key}: {reason_of_file(error)}") from error
        return made


def find_refusal(error: BaseException | None, address: object) -> CertificateRefused | None:
    """The error of a certificate that the other side does not take; None: something else is wrong.

    >>> error = ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca")
    >>> error.reason = "TLSV1_ALERT_UNKNOWN_CA"
    >>> print(find_refusal(error, "node-2:7443"))
    The broker at node-2:7443 refused the connection: the authority of the client's certificate is not in the broker's \
client_ca.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        message = f"The certificate of the broker at {address} is not accepted: {why}."
        return CertificateRefused(message, details={"side": "broker", "reason": error.verify_message})
    if not isinstance(error, ssl.SSLError):
        return None
    name = str(error.reason or "").upper()
    if name == "WRONG_VERSION_NUMBER":
        message = f"The broker at {address} does not use TLS there: check the address, or pass tls=False."
        return CertificateRefused(message, details={"side": "broker", "reason": "no TLS"})
    for alert, meaning in ALERTS.items():
        if name.endswith(f"ALERT_{alert}"):
            message = f"The broker at {address} refused the connection: {meaning}."
            return CertificateRefused(message, details={"side": "client", "reason": alert.lower()})
    return None

"""The caller over the network: the owner of an API key, or of a client certificate that the settings name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from snakepit.pools import permissions
from snakepit.pools.adapters.network.tls import names_of
from snakepit.pools.broker.caller import CallerIdentity, Limits

NO_LIMITS = CallerIdentity("", "")


@dataclass(frozen=True, slots=True)
class NetworkCaller(permissions.Rights):
    """An authenticated caller of the network; the broker sets its limits, and reads none from its messages."""

    quota: CallerIdentity = NO_LIMITS


class KeySource(Protocol):
    """Where API keys are looked up. Both methods may block: they run in a thread."""

    def find(self, secret: str) -> NetworkCaller | None:
        """The caller with this key; None: the key is unknown, expired or revoked."""
        ...


class NoKeys:
    """A KeySource without keys."""

    def find(self, secret: str) -> NetworkCaller | None:
        return None


@dataclass(frozen=True, slots=True)
class CertificateRights:
    """What the holder of a client certificate may do."""

    scopes: tuple[str, ...]
    pools: tuple[str, ...] = ()  # empty: all pools
    limits: Limits = NO_LIMITS.key_limits

    def caller(self, name: str, key_share: float) -> NetworkCaller:
        return NetworkCaller(
            f"certificate {name}",
            permissions.of_scopes(self.scopes),
            frozenset(self.pools) or None,
            CallerIdentity(f"certificate {name}", "", self.limits, key_share=key_share),
        )


def find_certificate(certificate: Mapping[str, Any], known: Mapping[str, CertificateRights]) -> str:
    """The first name of a certificate that has rights; empty: none has.

    >>> certificate = {"subjectAltName": (("DNS", "web"), ("DNS", "batch"))}
    >>> find_certificate(certificate, {"batch": CertificateRights(("run",))})
    'batch'
    """
    return next((name for name in names_of(certificate) if name in known), "")


def certificate_rights(settings: Mapping[str, Mapping[str, Any]], defaults: Limits) -> dict[str, CertificateRights]:
    """Read LISTEN_CERTIFICATES. `defaults`: the limits of a certificate that has none of its own."""

    def names(rights: Mapping[str, Any], key: str) -> tuple[str, ...]:
        given: Sequence[str] = rights.get(key, ())
        return tuple(given)

    return {
        name: CertificateRights(
            names(rights, "scopes"), names(rights, "pools"), Limits.of(rights.get("limits", {}), defaults)
        )
        for name, rights in settings.items()
    }

"""Addresses and TLS files of network connections, and what a certificate may do; what the settings may say of them.

>>> ListenAddress.parse("[::]:7443").is_loopback, ListenAddress.parse("127.0.0.1:7443").is_loopback
(False, True)
>>> find_listen_conflict(["0.0.0.0:7443"], {}, plaintext=False)
'0.0.0.0:7443 would take calls without TLS: set LISTEN_TLS, or LISTEN_PLAINTEXT = True in a network that you trust'
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from snakepit.pools.broker.caller import find_limit_problem

ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:\s\[\]]+):(?P<port>[0-9]{1,5})")
SERVER_FILES = ("cert", "key", "client_ca", "crl")
CLIENT_FILES = ("ca", "cert", "key", "server_name")
RIGHTS = ("scopes", "pools", "limits")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a broker takes network connections; port 0: the kernel chooses one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `host:port` or `[address]:port`; raises ValueError."""
        match = ADDRESS.fullmatch(text)
        if not match or int(match["port"]) > 65535:
            raise ValueError(f"{text!r} is not host:port or [IPv6 address]:port")
        return cls(match["host"].strip("[]"), int(match["port"]))

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def is_wildcard(self) -> bool:
        return self.host in ("0.0.0.0", "::")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether connections to this host stay on the machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def addresses(value: Any) -> str | None:
    """What is wrong with LISTEN; None: nothing."""
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        return f"{value!r} is not a list of addresses such as '0.0.0.0:7443'"
    seen: set[ListenAddress] = set()
    for one in value:
        try:
            address = ListenAddress.parse(one)
        except ValueError as error:
            return str(error)
        if address in seen and address.port:
            return f"{one} is in the list twice"
        seen.add(address)
    return None


def reachable(value: Any) -> str | None:
    """What is wrong with ADVERTISE; None: nothing."""
    if wrong := addresses(value):
        return wrong
    for one in map(ListenAddress.parse, value):
        if one.is_wildcard or not one.port:
            return f"{one} is not an address that other hosts can connect to; write the name of this host and its port"
    return None


def load_key_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    """Load a certificate chain and its private key, from two files or from one; raises OSError or ValueError."""
    # Without a password, OpenSSL asks for one on the terminal: the process would stop until it is typed.
    context.load_cert_chain(cert, key or None, password=_refuse_passphrase)


def _refuse_passphrase() -> str:
    raise ValueError("the key has a passphrase, and none can be given: write it without one (openssl pkey)")


def reason_of_file(error: Exception) -> str:
    """What is wrong with a file of TLS, in the words of the operating system or of OpenSSL.

    >>> reason_of_file(FileNotFoundError(2, "No such file or directory"))
    'no such file or directory'
    """
    if isinstance(error, ssl.SSLError):
        text = (error.reason or str(error)).lower().replace("_", " ")
        return "it has no certificate or key in PEM, or only a part of one" if "pem lib" in text else text
    return (getattr(error, "strerror", None) or str(error)).lower()


def _files(value: Any, names: Sequence[str]) -> str | None:
    if not isinstance(value, Mapping):
        return f"{value!r} is not a dict of {', '.join(names)}"
    for name, path in value.items():
        if name not in names:
            return f"{name!r} is not one of {', '.join(names)}"
        if not isinstance(path, str) or "\0" in path:
            return f"{name}: {path!r} is not a path"
    return None


def server_files(value: Any) -> str | None:
    wrong = _files(value, SERVER_FILES)
    if wrong is None and value and not (value.get("cert") and value.get("key")):
        return "cert and key are needed: the files of the broker's certificate chain and of its private key"
    if wrong is None and value.get("crl") and not value.get("client_ca"):
        return "crl needs client_ca: it has the certificates that the authorities there have revoked"
    return wrong


def client_files(value: Any) -> str | None:
    wrong = _files(value, CLIENT_FILES)
    if wrong is None and bool(value.get("cert")) != bool(value.get("key")):
        return "cert and key belong together: the files of the client's certificate chain and of its private key"
    return wrong


def certificates(value: Any) -> str | None:
    """What is wrong with LISTEN_CERTIFICATES; the system check compares the scopes with those that exist."""
    if not isinstance(value, Mapping):
        return f"{value!r} is not a dict of a certificate's name: its rights"
    for name, rights in value.items():
        if not isinstance(name, str) or not name:
            return f"the name {name!r} is not a string"
        if not isinstance(rights, Mapping) or any(key not in RIGHTS for key in rights):
            return f"{name}: {rights!r} is not a dict of {', '.join(RIGHTS)}"
        for key in ("scopes", "pools"):
            given = rights.get(key, ())
            if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
                return f"{name}: {key}: {given!r} is not a list of names"
        if not rights.get("scopes"):
            return f"{name}: scopes: name at least one"
        if wrong := find_limit_problem(rights.get("limits", {})):
            return f"{name}: limits: {wrong}"
    return None


def find_listen_conflict(listen: Sequence[str], tls: Mapping[str, str], *, plaintext: bool) -> str:
    """What is wrong with these settings together; empty: nothing. Each is right in itself."""
    if tls or plaintext:
        return ""
    for one in listen:
        if not ListenAddress.parse(one).is_loopback:
            return (
                f"{one} would take calls without TLS: set LISTEN_TLS, or LISTEN_PLAINTEXT = True in a network that "
                "you trust"
            )
    return ""


def find_conflict_of(raw: Mapping[Any, Any]) -> str:
    """The same for the dict of the settings; what is wrong in itself is for the checks of each key."""
    listen, tls = raw.get("LISTEN", ()), raw.get("LISTEN_TLS", {})
    if addresses(listen) is not None or not isinstance(tls, Mapping):
        return ""
    return find_listen_conflict(listen, tls, plaintext=raw.get("LISTEN_PLAINTEXT") is True)


def advertised(given: Sequence[str], listen: Sequence[str], host_name: str) -> tuple[str, ...]:
    """The addresses that other hosts use: those given, else those listened on, with the host's name for a wildcard.

    >>> advertised((), ("0.0.0.0:7443", "127.0.0.1:7444"), "gpu-1")
    ('gpu-1:7443',)
    """
    if given:
        return tuple(given)
    parsed = [ListenAddress.parse(one) for one in listen]
    names = (str(ListenAddress(host_name, one.port)) if one.is_wildcard else str(one) for one in parsed)
    return tuple(dict.fromkeys(name for name, one in zip(names, parsed, strict=True) if not one.is_loopback))

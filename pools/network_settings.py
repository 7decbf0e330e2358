"""The settings of connections over a network: the broker's listener, and this project's clients of other brokers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from snakepit.pools import listening, setting_checks
from snakepit.pools.setting_checks import number, setting

LISTEN_VARIABLE = "SNAKEPIT_LISTEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfiguration:
    listen: tuple[str, ...] = setting(
        tuple,
        check=listening.addresses,
        help="Network addresses of the broker, such as `0.0.0.0:7443` or `[::]:7443`; empty: only its Unix socket. "
        "The environment variable `SNAKEPIT_LISTEN` replaces it, with commas between addresses.",
    )
    listen_tls: Mapping[str, str] = setting(
        dict,
        check=listening.server_files,
        help="PEM files of LISTEN: `cert`, `key`, `client_ca` for mutual TLS, and `crl` with the revocation lists of "
        "its authorities. A changed file is read again.",
    )
    listen_plaintext: bool = setting(
        False,
        check=setting_checks.flag,
        help="Take calls without TLS on addresses that other hosts reach. API keys and data are then readable there.",
    )
    listen_certificates: Mapping[str, Mapping[str, Any]] = setting(
        dict,
        check=listening.certificates,
        help="Rights of client certificates by name (a SAN, or the common name): `scopes`, `pools`, `limits`.",
    )
    listen_connections: int = number(1024, 1, 10**5, help="Maximum number of network connections of a broker.")
    listen_connections_per_host: int = number(256, 1, 10**5, help="Maximum number of them from one address.")
    listen_streams: int = number(100, 1, 10_000, help="Maximum number of open gRPC streams of a network connection.")
    listen_handshake_timeout: float = number(5.0, 0.1, 60, unit="s", help="Time for the TLS handshake of a connection.")
    listen_login_timeout: float = number(
        10.0, 0.1, 300, unit="s", help="Time until a connection without a client certificate presents a valid API key."
    )
    advertise: tuple[str, ...] = setting(
        tuple,
        check=listening.reachable,
        help="Addresses by which other hosts reach this broker; empty: LISTEN, with the host name for a wildcard.",
    )
    broker_address: str = setting(
        "",
        check=setting_checks.text,
        help="Broker that this project's clients use: `host:port`, or the path of a socket; empty: this node's.",
    )
    broker_tls: Mapping[str, str] = setting(
        dict,
        check=listening.client_files,
        help="PEM files for connections to brokers on a network: `ca`, and `cert` and `key` for mutual TLS; "
        "`server_name`, if certificates have another name than the address.",
    )
    broker_key: str = setting(
        "", check=setting_checks.text, help="API key for brokers on a network. The value stays out of rows and logs."
    )


NETWORK_FIELDS = frozenset(one.name for one in fields(NetworkConfiguration))

"""The clients of this process: `connect()` returns one for each address."""

from __future__ import annotations

import ssl

from snakepit.pools.client.address import Target, default_address
from snakepit.pools.client.client import Client


def connect(
    address: str | None = None,
    token: str | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    connect_timeout: float = 1.0,
) -> Client:
    """The process's client for a broker.

    `address`: the path of the broker's socket, or `host:port`, which needs `tls` (TLS 1.2 or later with ALPN `h2`, set
    here). Default: SNAKEPIT_ADDRESS, else the socket in the Django project's runtime directory. `token`: default
    SNAKEPIT_TOKEN, else the file `token` beside the socket, read at each connect. `connect_timeout`: how long a call
    tries to reach a broker that is away before it raises `BrokerUnreachable`.

    Nothing is connected before the first call, and all clients of one address share one connection.
    """
    target = Target.parse(address or default_address(), token or "", tls, connect_timeout)
    return _clients.setdefault(target, Client(target))  # no lock: an interrupt could leave it held


_clients: dict[Target, Client] = {}

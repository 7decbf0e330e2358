"""The clients of this process: `connect()` returns one for each address."""

from __future__ import annotations

import ssl

from snakepit.pools.client.address import Target, default_address, find_target
from snakepit.pools.client.client import Client
from snakepit.pools.client.tls import Tls


def connect(
    address: str | None = None,
    token: str | None = None,
    *,
    tls: ssl.SSLContext | Tls | bool | None = None, key: str | None = None, connect_timeout: float = 1.0,
) -> Client:  # fmt: skip
    """The process's client for a broker. Nothing is connected before the first call; clients of an address share it.

    `address`: the path of the broker's socket, or `host:port`; default SNAKEPIT_ADDRESS, else BROKER_ADDRESS, else the
    socket in the project's runtime directory. `token`: default SNAKEPIT_TOKEN, else the file `token` beside the socket.
    `connect_timeout`: how long a call tries to reach a broker that is away before it raises `BrokerUnreachable`.

    For `host:port`: `tls` is `Tls(ca=..., cert=..., key=...)`, files that are read at each connect; or a context, True
    (the system's authorities) or False (no TLS); default SNAKEPIT_TLS_CA, _CERT and _KEY, else BROKER_TLS. `key`: an
    API key; default SNAKEPIT_TOKEN, else BROKER_KEY. A client certificate with rights at the broker needs none.
    """
    target = find_target(address or default_address(), key or token or "", tls, connect_timeout)
    return _clients.setdefault(target, Client(target))  # no lock: an interrupt could leave it held


_clients: dict[Target, Client] = {}

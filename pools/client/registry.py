"""The clients of this process: `connect()` returns one for each address."""

from __future__ import annotations

import os
import ssl

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.client.address import Target, default_address, find_target
from snakepit.pools.client.client import Client
from snakepit.pools.client.routing.client import RoutedClient
from snakepit.pools.client.routing.discovery import DnsNodes, NodeRows
from snakepit.pools.client.routing.router import Router
from snakepit.pools.client.tls import Tls

DNS = "dns:///"


def connect(
    address: str | None = None,
    token: str | None = None,
    *,
    tls: ssl.SSLContext | Tls | bool | None = None, key: str | None = None, connect_timeout: float = 1.0,
) -> Client:  # fmt: skip
    """The process's client for a broker. Nothing is connected before the first call; clients of an address share it.

    `address`: the path of a socket, `host:port`, or `dns:///host:port` for all brokers behind a name. Default:
    SNAKEPIT_ADDRESS, else BROKER_ADDRESS, else the socket in the project's runtime directory. By default, the other
    nodes of the project's database get the calls that this broker does not take. `token`: default SNAKEPIT_TOKEN, else
    the file `token` beside the socket. `connect_timeout`: how long a call tries to reach a broker that is away before
    it raises `BrokerUnreachable`.

    For `host:port`: `tls` is `Tls(ca=..., cert=..., key=...)`, files that are read at each connect; or a context, True
    (the system's authorities) or False (no TLS); default SNAKEPIT_TLS_CA, _CERT and _KEY, else BROKER_TLS. `key`: an
    API key; default SNAKEPIT_TOKEN, else BROKER_KEY. A client certificate with rights at the broker needs none.
    """
    # No lock: an interrupt could leave it held.
    chosen = address or os.environ.get("SNAKEPIT_ADDRESS", "")
    used = chosen or default_address()
    target = find_target(used.removeprefix(DNS), key or token or "", tls, connect_timeout)
    if used.startswith(DNS) and target.path:
        raise BadRequest(f"address: {used!r} is not dns:///host:port, such as dns:///brokers.internal:7443")
    if used.startswith(DNS):
        return _routed.get(target) or _routed.setdefault(target, RoutedClient(target, Router(DnsNodes(target))))
    if chosen:
        return _clients.get(target) or _clients.setdefault(target, Client(target))
    return _routed.get(target) or _routed.setdefault(target, RoutedClient(target, Router(NodeRows(target))))


_clients: dict[Target, Client] = {}
_routed: dict[Target, RoutedClient] = {}  # whose calls find a node

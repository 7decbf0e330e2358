"""The address of a client behind proxies: the headers of named proxies count, those of all others do not."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

UNIX = "unix"  # a peer without an address: a server that listens on a Unix socket
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def find_problem(value: Any) -> str | None:
    """What is wrong with the setting TRUSTED_PROXIES."""
    if not isinstance(value, list | tuple):
        return f"{value!r} is not a list of addresses and networks"
    for one in value:
        try:
            one == UNIX or ipaddress.ip_network(one, strict=False)
        except ValueError:
            return f"{one!r} is not an address, not a network such as 10.0.0.0/8, and not {UNIX!r}"
    return None


def is_trusted(peer: str, proxies: Iterable[str]) -> bool:
    """Whether a peer is one of the named proxies.

    >>> is_trusted("10.1.2.3", ["10.0.0.0/8"]), is_trusted("10.1.2.3", ["127.0.0.1"]), is_trusted("", ["unix"])
    (True, False, True)
    >>> is_trusted("::ffff:127.0.0.1", ["127.0.0.1"])
    True
    """
    if not peer:
        return UNIX in proxies
    address = parse(peer)
    networks = (ipaddress.ip_network(one, strict=False) for one in proxies if one != UNIX)
    return address is not None and any(address in network for network in networks)


def client_of(peer: str, forwarded_for: str, proxies: Iterable[str]) -> str:
    """The client's address: the last one in X-Forwarded-For that is no trusted proxy.

    Each proxy appends the address of its own peer, so only the right end of the list is reliable.

    >>> client_of("10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2", ["10.0.0.0/8"])
    '203.0.113.9'
    >>> client_of("10.0.0.1", "<script>", ["10.0.0.0/8"]), client_of("203.0.113.9", "6.6.6.6", ["10.0.0.0/8"])
    ('10.0.0.1', '203.0.113.9')
    """
    proxies = tuple(proxies)
    client = peer
    for text in reversed(forwarded_for.split(",")):
        if not is_trusted(client, proxies):
            break
        address = parse(text.strip())
        if address is None:
            break
        client = str(address)
    return client


def parse(text: str) -> Address | None:
    """An address as a proxy writes it, with or without a port; None for anything else.

    >>> [str(parse(text)) for text in ("203.0.113.9:4711", "[2001:db8::1]:4711", "2001:db8::1%eth0", "x")]
    ['203.0.113.9', '2001:db8::1', 'None', 'None']
    """
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return None if address.scope_id else address.ipv4_mapped or address
    return address

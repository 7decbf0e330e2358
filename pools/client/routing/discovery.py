"""Where the nodes are: the rows that their brokers write, or the addresses behind a name in DNS."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client.address import TCP, Target, find_target
from snakepit.pools.host import socket_id

logger = logging.getLogger("snakepit.client")
THIS_HOST = "this host"  # the name of its node while no row has it
MOST_NODES = 200
MAX_SILENCE = timedelta(days=1)  # after which a node that wrote nothing is not asked any more


@dataclass(frozen=True, slots=True)
class KnownNode:
    """A node and its address. `named`: its broker must answer with this name."""

    name: str
    target: Target
    own: bool = False  # the broker of this host
    named: bool = True

    @property
    def is_absent(self) -> bool:
        """Whether there is no socket at its path. To connect would take as long as a broker that is away."""
        return bool(self.target.path) and not os.path.exists(self.target.path)


class NodeSource(Protocol):
    """Finds nodes. `find` may block: it runs in a thread of its own."""

    own: Target | None
    first: tuple[KnownNode, ...]  # what is known without a query

    def find(self) -> tuple[KnownNode, ...]: ...


class NodeRows:
    """The nodes of a Django project: its own, and those whose rows have an address that this process can reach."""

    def __init__(self, own: Target) -> None:
        self.own: Target | None = own
        self.first: tuple[KnownNode, ...] = (KnownNode(THIS_HOST, own, own=True, named=False),)
        self._own = own

    def find(self) -> tuple[KnownNode, ...]:
        return nodes_of(_rows(), self._own)


@dataclass(frozen=True, slots=True)
class NodeRow:
    """What a broker wrote about its addresses."""

    name: str
    path: str  # of its socket
    host: str  # the machine and the file of that socket: `socket_id`
    advertised: tuple[str, ...] = ()  # host:port, for other machines


def nodes_of(rows: Iterable[NodeRow], own: Target, locate: Callable[[str], str] = socket_id) -> tuple[KnownNode, ...]:
    """Return the nodes that this process can reach. The own node is first."""
    return reach(rows, own, locate)[0]


def reach(
    rows: Iterable[NodeRow], own: Target, locate: Callable[[str], str] = socket_id
) -> tuple[tuple[KnownNode, ...], dict[str, str]]:
    """Return the nodes that this process can reach, the own node first; and why it cannot reach the others, by name.

    The path of a socket works where the same file is at this path. Other machines, and containers without this
    directory, use the first address that the broker advertises, with the TLS and the key of the settings.
    """
    first, others, away = KnownNode(THIS_HOST, own, own=True, named=False), [], {}
    for row in rows:
        here = locate(row.path)
        address = row.path if here and here == row.host else next(iter(row.advertised), "")
        if not address:
            away[row.name] = (
                f"its socket {row.path} is not on this host, and it advertises no address (LISTEN, ADVERTISE)"
            )
            continue
        try:
            target = find_target(address, "" if TCP.fullmatch(address) else own.token, None, own.connect_timeout)
        except BrokerError as error:  # such as no TLS for a host and port
            away[row.name] = error.message
            logger.warning("node %s: %s", row.name, error)
            continue
        if target.path and target.path == own.path:
            first = replace(first, name=row.name, named=True)
        elif target != own:
            others.append(KnownNode(row.name, target))
    return (first, *others), away


def _rows() -> list[NodeRow]:
    """The rows of nodes that did not shut down; none where Django is not set up."""
    from django.apps import apps
    from django.db import connections

    if not apps.ready or not apps.is_installed("snakepit.pools"):
        return []
    from snakepit.pools.models import Node

    try:
        rows = Node.objects.filter(stopped=False).seen_within(MAX_SILENCE).order_by("name")
        found = rows.values_list("name", "address", "host", "advertised")[:MOST_NODES]
        return [NodeRow(name, path, host, tuple(map(str, more))) for name, path, host, more in found]
    finally:
        connections.close_all()  # those of this thread, which ends


class DnsNodes:
    """The addresses behind a name, such as a headless service of Kubernetes."""

    own: Target | None = None
    first: tuple[KnownNode, ...] = ()

    def __init__(self, target: Target) -> None:
        self._target = target

    def find(self) -> tuple[KnownNode, ...]:
        found = socket.getaddrinfo(self._target.host, self._target.port, type=socket.SOCK_STREAM)
        hosts = sorted({str(one[4][0]) for one in found})[:MOST_NODES]
        named = replace(self._target, server_name=self._target.host)
        return tuple(KnownNode(host, replace(named, host=host), named=False) for host in hosts)

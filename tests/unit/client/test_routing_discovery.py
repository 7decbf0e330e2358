"""The nodes that a process can reach, by what their brokers wrote into rows."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit.pools.client.address import Target
from snakepit.pools.client.routing import discovery
from snakepit.pools.client.routing.discovery import DnsNodes, NodeRow, nodes_of

OWN = Target(path="/run/own/broker.sock")


def reach(*rows: NodeRow, host: str = "here") -> dict[str, str]:
    return {node.name: str(node.target) for node in nodes_of(rows, OWN, host)}


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    """A project whose settings have TLS for other hosts."""
    plain = lambda address, token, tls, wait: Target.parse(address, token or "key", False, wait)  # noqa: E731
    monkeypatch.setattr(discovery, "find_target", plain)


def test_a_path_works_on_its_own_machine_and_the_advertised_address_on_others() -> None:
    rows = [
        NodeRow("n1", OWN.path, "here"),
        NodeRow("n2", "/run/n2/broker.sock", "here", ("n2:7443",)),
        NodeRow("n3", OWN.path, "there", ("n3:7443", "n3.internal:7443")),
        NodeRow("n4", OWN.path, "there"),
    ]
    assert reach(*rows) == {"n1": OWN.path, "n2": "/run/n2/broker.sock", "n3": "n3:7443"}


def test_the_own_node_is_there_before_it_has_a_row() -> None:
    assert reach() == {"this host": OWN.path}
    assert [node.own for node in nodes_of([NodeRow("n1", OWN.path, "here")], OWN, "here")] == [True]


def test_a_row_with_an_address_that_cannot_work_does_not_hide_the_others() -> None:
    long = NodeRow("long", "/" + "x" * 200, "here")
    assert reach(long, NodeRow("n2", "/run/n2", "here")) == {"this host": OWN.path, "n2": "/run/n2"}


def test_a_name_stands_for_each_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        assert (host, port) == ("snakepit.prod.svc", 7443)
        return [(2, 1, 6, "", ("10.0.0.2", port)), (2, 1, 6, "", ("10.0.0.1", port)), (2, 1, 6, "", ("10.0.0.2", port))]

    monkeypatch.setattr(discovery.socket, "getaddrinfo", getaddrinfo)
    named = Target(host="snakepit.prod.svc", port=7443)
    found = DnsNodes(named).find()
    assert [(node.target.host, node.target.server_name) for node in found] == [
        ("10.0.0.1", "snakepit.prod.svc"),
        ("10.0.0.2", "snakepit.prod.svc"),
    ]

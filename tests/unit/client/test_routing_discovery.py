"""The nodes that a process can reach, by what their brokers wrote into rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.client.address import Target
from snakepit.pools.client.routing import discovery
from snakepit.pools.client.routing.discovery import DnsNodes, NodeRow, nodes_of
from snakepit.pools.host import host_id, socket_id

OWN = Target(path="/run/own/broker.sock")


def here(path: str) -> str:
    return f"here {path}"


def reach(*rows: NodeRow, locate: Callable[[str], str] = here) -> dict[str, str]:
    return {node.name: str(node.target) for node in nodes_of(rows, OWN, locate)}


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    """A project whose settings have TLS for other hosts."""
    plain = lambda address, token, tls, wait: Target.parse(address, token or "key", False, wait)  # noqa: E731
    monkeypatch.setattr(discovery, "find_target", plain)


def test_a_path_works_on_its_own_machine_and_the_advertised_address_on_others() -> None:
    rows = [
        NodeRow("n1", OWN.path, here(OWN.path)),
        NodeRow("n2", "/run/n2/broker.sock", here("/run/n2/broker.sock"), ("n2:7443",)),
        NodeRow("n3", OWN.path, "there", ("n3:7443", "n3.internal:7443")),
        NodeRow("n4", OWN.path, "there"),
    ]
    assert reach(*rows) == {"n1": OWN.path, "n2": "/run/n2/broker.sock", "n3": "n3:7443"}


def test_containers_of_one_machine_with_sockets_at_the_same_path_use_their_network(tmp_path: Path) -> None:
    (tmp_path / "own").touch()
    own = Target(path=str(tmp_path / "own"))
    absent, boot = str(tmp_path / "absent"), host_id()
    rows = [
        NodeRow("n1", own.path, socket_id(own.path)),
        NodeRow("n2", own.path, f"{boot} 0:1", ("n2:7443",)),  # the same path in another mount namespace
        NodeRow("n3", absent, f"{boot} 0:2", ("n3:7443",)),
        NodeRow("n4", absent, boot),
    ]
    found = {node.name: str(node.target) for node in nodes_of(rows, own)}
    assert found == {"n1": own.path, "n2": "n2:7443", "n3": "n3:7443"}


def test_the_row_of_an_earlier_name_is_not_the_node_of_this_host(tmp_path: Path) -> None:
    own, rows = Target(path=str(tmp_path / "own")), []
    for born, name in enumerate(("worn-out", "new")):  # a broker that was killed, and started with another name
        Path(own.path).unlink(missing_ok=True)
        Path(own.path).touch()  # file systems give it the same number again
        os.utime(own.path, ns=(born, born))
        rows.append(NodeRow(name, own.path, socket_id(own.path)))
    assert [node.name for node in nodes_of(rows[::-1], own)] == ["new"]


def test_the_own_node_is_there_before_it_has_a_row() -> None:
    assert reach() == {"this host": OWN.path}
    assert [node.own for node in nodes_of([NodeRow("n1", OWN.path, here(OWN.path))], OWN, here)] == [True]


def test_a_row_with_an_address_that_cannot_work_does_not_hide_the_others() -> None:
    long, short = "/" + "x" * 200, "/run/n2"
    rows = [NodeRow("long", long, here(long)), NodeRow("n2", short, here(short))]
    assert reach(*rows) == {"this host": OWN.path, "n2": short}


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


def test_a_node_that_cannot_be_reached_has_its_reason() -> None:
    long = "/" + "x" * 200
    rows = [
        NodeRow("n1", OWN.path, here(OWN.path)),
        NodeRow("n4", OWN.path, "there"),
        NodeRow("long", long, here(long)),
    ]
    nodes, away = discovery.reach(rows, OWN, here)
    assert [node.name for node in nodes] == ["n1"]
    assert away["n4"].endswith("is not on this host, and it advertises no address (LISTEN, ADVERTISE)")
    assert set(away) == {"n4", "long"}

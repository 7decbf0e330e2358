"""Certificates that are not accepted any more: on both sides, with the reason on both sides, without a restart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.adapters.network.listener import ListenConfig
from snakepit.pools.adapters.network.tls import TlsFiles
from snakepit.pools.broker.errors import BrokerUnreachable, CertificateRefused
from snakepit.pools.broker.node_status import ListenerStatus
from snakepit.pools.client import Client, Tls, connect
from tests.brokers import PATIENCE
from tests.certificates import Authority
from tests.process.contract.fake_broker import POOL, FakeBroker
from tests.process.contract.network_broker import KEY, Network, OneKey


class Site:
    """A broker with mutual TLS and a revocation list, and clients of its authority."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.lists = directory / "revoked.pem"
        self.lists.write_bytes(self.authority.revoke())
        cert, key = self.authority.issue("server")
        files = TlsFiles(cert, key, str(self.authority.path), str(self.lists))
        config = ListenConfig(("127.0.0.1:0",), files, keys=OneKey())
        self.broker = FakeBroker(directory, network=Network(config, self.tls("first")))

    def tls(self, name: str) -> Tls:
        return Tls(str(self.authority.path), *self.authority.issue(name))

    def client(self, tls: Tls) -> Client:
        return connect(self.broker.address, tls=tls, key=KEY, connect_timeout=PATIENCE)

    def status(self) -> ListenerStatus:
        found: ListenerStatus = self.broker.ask(self.broker.listener.status)[0]
        return found

    def until(self, question: Callable[[ListenerStatus], Any]) -> None:
        """Wait until the listener's status fits; it looks at its files once a second."""
        deadline = time.monotonic() + PATIENCE
        while not question(self.status()):
            assert time.monotonic() < deadline, self.status()
            time.sleep(0.01)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    made.broker.start()
    yield made
    made.broker.stop()


def refused(client: Client) -> CertificateRefused:
    with pytest.raises(CertificateRefused) as caught:
        client.call(POOL, "echo")
    assert caught.value.outcome == "not_started"
    return caught.value


def test_a_certificate_that_a_list_revokes_is_refused_and_its_connections_end(site: Site) -> None:
    gone, kept = site.tls("gone"), site.tls("kept")
    with site.client(gone) as revoked, site.client(kept) as other:
        assert revoked.call(POOL, "echo", a=1) == other.call(POOL, "echo", a=1) == {"a": 1}
        waiting = revoked.submit(POOL, "mute")
        site.lists.write_bytes(site.authority.revoke(gone.cert))
        assert isinstance(waiting.exception(PATIENCE), BrokerUnreachable)
        error = refused(revoked)
        assert "the client's certificate is revoked" in error.message
        assert error.details["side"] == "client"
        # A client of another run, whose broker had this port, may be refused for another reason.
        site.until(lambda now: [now.refused.get(f"certificate_{why}") for why in ("removed", "revoked")] == [1, 1])
        accepted = site.status().accepted
        assert other.call(POOL, "echo", a=2) == {"a": 2}
        assert site.status().accepted == accepted  # on the connection that it has
    with site.client(site.tls("later")) as later:
        assert later.call(POOL, "echo", a=3) == {"a": 3}


def test_a_list_that_has_expired_is_shown_and_no_certificate_is_accepted(site: Site) -> None:
    site.lists.write_bytes(site.authority.revoke(days=-1))
    site.until(lambda now: "a list has expired" in now.problem)
    with site.client(site.tls("any")) as client:
        assert "or the broker's revocation list has" in refused(client).message
        site.until(lambda now: now.refused.get("revocation_list"))
        site.lists.write_bytes(site.authority.revoke())
        site.until(lambda now: not now.problem)
        assert client.call(POOL, "echo", a=1) == {"a": 1}


def test_a_file_without_a_list_leaves_the_last_ones_in_force(site: Site) -> None:
    gone = site.tls("gone")
    site.lists.write_bytes(site.authority.revoke(gone.cert))
    with site.client(gone) as client:
        site.until(lambda now: not now.problem and _is_refused(client))
        site.lists.write_text("half")
        site.until(lambda now: "it has no list" in now.problem)
        refused(client)


def _is_refused(client: Client) -> bool:
    try:
        client.call(POOL, "echo")
    except CertificateRefused:
        return True
    except BrokerUnreachable:  # the list came during the call, which ended its connection
        return False
    client.close()
    return False


@pytest.mark.parametrize("wrong", ["expired", "removed"])
def test_a_broker_whose_certificate_is_not_trusted_any_more_is_refused(site: Site, tmp_path: Path, wrong: str) -> None:
    tls = site.tls("client")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(site.authority.path.read_bytes())
    with site.client(replace(tls, ca=str(trusted))) as client:
        assert client.call(POOL, "echo", a=1) == {"a": 1}
        if wrong == "expired":
            site.authority.issue("server", days=-1)
            site.until(lambda now: now.certificate_expires < time.time())
        else:
            trusted.write_bytes(Authority(tmp_path, "other").path.read_bytes())
        client.close()
        error = refused(client)
        assert ("has expired" if wrong == "expired" else "certificate chain") in error.message
        assert error.details["side"] == "broker"
        site.until(lambda now: sum(now.refused.values()))

"""Peers that send frames which cost them nothing: their connection ends, and the calls of others go on."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection

from snakepit.pools.adapters.network import connections
from snakepit.pools.adapters.network.listener import MOST_REFUSALS
from snakepit.pools.client import connect
from snakepit.pools.wire import broker_pb2 as pb
from snakepit.pools.wire.broker_pb2_grpc import BrokerStub
from tests.brokers import PATIENCE
from tests.process.contract.fake_broker import POOL, FakeBroker
from tests.process.contract.network_broker import Network

AT_ONCE = 50  # requests, less than a connection may have
MOST = 100_000  # frames


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return Network.make(tmp_path_factory.mktemp("network"))


@pytest.fixture
def broker(tmp_path: Path, network: Network) -> Iterator[FakeBroker]:
    started = FakeBroker(tmp_path, network=network).start()
    yield started
    started.stop()


class Peer:
    """HTTP/2 without manners, over a connection with a client certificate that has no rights."""

    def __init__(self, broker: FakeBroker, key: str) -> None:
        context = broker.network.tls.context()
        context.set_alpn_protocols(["h2"])
        raw = socket.create_connection(("127.0.0.1", broker.port), timeout=PATIENCE)
        self.tls = context.wrap_socket(raw, server_hostname="localhost")
        self.h2 = H2Connection(H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.next = 1
        self.headers = [
            (":method", "POST"), (":scheme", "https"), (":path", "/snakepit.broker.v1.Broker/Execute"),
            (":authority", "localhost"), ("te", "trailers"), ("content-type", "application/grpc+proto"),
            ("authorization", f"Bearer {key}"),
        ]  # fmt: skip

    def cancel_requests(self) -> None:
        for _ in range(AT_ONCE):
            self.h2.send_headers(self.next, self.headers)
            self.h2.reset_stream(self.next)
            self.next += 2

    def ping(self) -> None:
        for _ in range(AT_ONCE):
            self.h2.ping(b"8 bytes!")

    def send_window(self) -> None:
        self.send_raw(8, (1).to_bytes(4, "big"))

    def send_empty_data(self) -> None:
        if self.next == 1:
            self.h2.send_headers(self.next, self.headers)
            self.next += 2
        self.send_raw(0, b"", stream=1)

    def send_skipped(self) -> None:
        self.send_raw(10, bytes(2), stream=1)  # ALTSVC: h2 reads it, and shows nothing

    def send_raw(self, kind: int, content: bytes, stream: int = 0) -> None:
        frame = len(content).to_bytes(3, "big") + bytes((kind, 0)) + stream.to_bytes(4, "big") + content
        self.tls.sendall(self.h2.data_to_send() + frame * AT_ONCE)

    def is_ended_by(self, send: Callable[[], None]) -> bool:
        try:
            for _ in range(MOST // AT_ONCE):
                send()
                self.tls.sendall(self.h2.data_to_send())
            while self.tls.recv(65536):  # a busy broker reads later than all was sent
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True


@pytest.mark.parametrize(
    ("send", "key"),
    [
        (Peer.cancel_requests, "wrong"),
        (Peer.cancel_requests, "snk_contract"),
        (Peer.ping, "wrong"),
        (Peer.send_window, "wrong"),
        (Peer.send_window, "snk_contract"),
        (Peer.send_empty_data, "snk_contract"),
        (Peer.send_skipped, "wrong"),
    ],
)
def test_a_flood_ends_its_connection_and_no_other_one(
    broker: FakeBroker, send: Callable[[Peer], None], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PINGS", 50)  # a second: a busy machine sends more of them, too
    monkeypatch.setattr(connections, "CANCELS", 1)
    with connect(broker.address, connect_timeout=PATIENCE, **broker.options) as client:
        assert client.call(POOL, "echo", a=1) == {"a": 1}
        peer = Peer(broker, key)
        # In a thread of its own: CPython 3.14 reports a failed write of one TLS connection again, at the next read of
        # another one in the same thread.
        with peer.tls, ThreadPoolExecutor(1) as other:
            assert other.submit(peer.is_ended_by, partial(send, peer)).result()
        assert client.call(POOL, "echo", a=2) == {"a": 2}
        refused = dict(broker.ask(broker.listener.status)[0].refused)
        refused.pop("not_tls", 0)  # a client of an earlier test that finds its broker's port in use by this one
        assert refused == {"flood": 1}


def test_a_connection_whose_requests_all_lack_a_valid_key_ends(broker: FakeBroker) -> None:
    tls = broker.network.tls
    files = [Path(path).read_bytes() for path in (tls.ca, tls.key, tls.cert)]
    asked = 0
    with grpc.secure_channel(broker.address, grpc.ssl_channel_credentials(*files)) as channel:
        stub = BrokerStub(channel)
        while "no_login" not in broker.ask(broker.listener.status)[0].refused:
            with pytest.raises(grpc.RpcError):
                stub.Status(pb.StatusRequest(), metadata=(("authorization", "Bearer wrong"),), timeout=PATIENCE)
            asked += 1
    assert asked > MOST_REFUSALS

"""Brokers of the contract behind the real listener: mutual TLS on a loopback port, and an API key for each session.

`NetworkBroker` has the real service and broker core in front of the kit's workers. A `FakeBroker` takes the same
listener, for the tests that read messages or fixed answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpclib.server import Server

from snakepit.pools import permissions
from snakepit.pools.adapters.grpc.service import BrokerService
from snakepit.pools.adapters.network.connections import NetworkPeer
from snakepit.pools.adapters.network.identity import NetworkCaller
from snakepit.pools.adapters.network.listener import ListenConfig, Listener
from snakepit.pools.adapters.network.tls import TlsFiles
from snakepit.pools.client import Tls
from snakepit.testing.pools import Pools
from snakepit.workers.transport.grpclib_connections import server_configuration
from tests.brokers import PATIENCE
from tests.certificates import Authority
from tests.process.contract.fake_broker import POOL
from tests.process.contract.kit_broker import FIELDS, KitBroker

KEY = "snk_contract"


@dataclass(frozen=True)
class Network:
    """Certificates of a broker and of a client, and the listener that has them."""

    config: ListenConfig
    tls: Tls
    key: str = KEY

    @classmethod
    def make(cls, directory: Path) -> Network:
        authority = Authority(directory)
        (cert, key), (own, private) = authority.issue("server"), authority.issue("client")
        files = TlsFiles(cert, key, str(authority.path))
        config = ListenConfig(("127.0.0.1:0",), files, keys=OneKey())
        return cls(config, Tls(str(authority.path), own, private))

    def environment(self) -> dict[str, str]:
        """The variables that say the same to a client in another process."""
        files = {"CA": self.tls.ca, "CERT": self.tls.cert, "KEY": self.tls.key}
        return {"SNAKEPIT_TOKEN": self.key, **{f"SNAKEPIT_TLS_{name}": path for name, path in files.items()}}

    def listen(self, serve: Callable[[NetworkPeer], Any]) -> Listener:
        """Start a listener on the running loop. `serve` returns the gRPC service of a connection."""
        listener = Listener(self.config, lambda peer: Server([serve(peer)], config=server_configuration()))
        listener.bind()
        listener.start()
        return listener


class OneKey:
    """A KeySource with one key, which may do everything."""

    def find(self, secret: str) -> NetworkCaller | None:
        return NetworkCaller("key contract", permissions.ALL, None) if secret == KEY else None


class NetworkBroker(KitBroker):
    """Start and stop it from a test, as the fake broker and the kit."""

    def __init__(self, network: Network) -> None:
        super().__init__(Path())
        self.network = network
        self.options = {"tls": network.tls, "key": network.key}

    def start(self) -> NetworkBroker:
        self._pools = Pools({POOL: {"adapter": self._bound(), **FIELDS}}, 2, "inline")
        self.local: Any = self._pools.target.local
        self.local.prepare(POOL)
        self._on_loop(self._listen)
        self.address = self._listener.status()[0].address
        return self

    def stop(self) -> None:
        self.released.set()
        self._on_loop(self._listener.close)
        self._pools.close()

    def _listen(self) -> None:
        self._listener = self.network.listen(lambda peer: CountedService(self, peer))

    def _on_loop(self, work: Callable[[], None]) -> None:
        async def turn() -> None:
            work()
            await asyncio.sleep(0)  # the cancelled tasks of the listener end in this turn

        asyncio.run_coroutine_threadsafe(turn(), self.local.loop).result(PATIENCE)


class CountedService(BrokerService):
    """Counts sessions, and those that their client has ended in order."""

    def __init__(self, seen: NetworkBroker, peer: NetworkPeer) -> None:
        own = seen.local.service
        super().__init__(own._broker, own._recent, own._metrics, peer)
        self._seen = seen

    async def Session(self, stream: Any) -> None:
        self._seen.sessions += 1
        await super().Session(stream)
        self._seen.farewells += 1

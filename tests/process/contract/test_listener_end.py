"""A listener that ends while clients connect closes each connection, at whatever moment of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from pathlib import Path
from typing import NoReturn

import pytest

from snakepit.pools.adapters.network.connections import NetworkPeer
from tests.brokers import PATIENCE
from tests.process.contract.network_broker import Network

TURNS = range(12)  # of the loop: from the connection to the wait for the client's part of the handshake


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    place: Path = tmp_path_factory.mktemp("listener")
    return Network.make(place)


def serve(peer: NetworkPeer) -> NoReturn:
    raise AssertionError(f"no handshake ends here, so {peer} needs no service")


@pytest.mark.parametrize("turns", TURNS)
async def test_a_connection_that_opens_while_the_listener_ends_is_closed(network: Network, turns: int) -> None:
    """What only the garbage collector closes is a ResourceWarning, and so an error of this test."""
    listener = network.listen(serve)
    host, _, port = listener.status()[0].address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        opening = set(listener._tasks)
        listener.close()
        await asyncio.gather(*opening, return_exceptions=True)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.to_thread(client.recv, 1) == b""
    gc.collect()

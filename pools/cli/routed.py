"""Sends a call of the shell to a node that takes it, as `connect()` does, without Django if that is this host's."""

from __future__ import annotations

import os

from snakepit.pools.cli.project import find_address, start_django
from snakepit.pools.client import Client, Stream, connect
from snakepit.pools.client.arguments import EncodedCall
from snakepit.pools.client.routing.client import RoutedClient, RoutedStream
from snakepit.pools.client.routing.discovery import NodeRows
from snakepit.pools.client.routing.router import PATIENCE, Router


class ProjectRouter(Router):
    """Starts Django before it looks for other nodes. This takes a second, which most calls do not need."""

    def wake(self, patience: float = PATIENCE) -> None:
        if patience > 0:  # else no call waits for a node
            start_django()
        super().wake(patience)


def open_stream(call: EncodedCall) -> Stream:
    """Send a call, and return its events."""
    client = client_of(find_address())
    if isinstance(client, RoutedClient):
        return RoutedStream(client, call, only_chunks=False)
    return Stream(client.target, call, only_chunks=False)


def client_of(address: str) -> Client:
    """The client of a broker: its calls find a node, unless the environment names one broker."""
    client = connect(address)
    if isinstance(client, RoutedClient) or os.environ.get("SNAKEPIT_ADDRESS"):
        return client
    return RoutedClient(client.target, ProjectRouter(NodeRows(client.target)))

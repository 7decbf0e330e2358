"""The private names of grpclib and h2 that network connections need, beside those of grpclib_internals.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.protocol import Connection as H2Connection
from grpclib.server import Server
from h2.settings import SettingCodes

from snakepit.workers.transport.frames import CheapFrames, FrameCounter


def missing_names() -> str:
    """Return what the installed grpclib does not have of the names that are used here; empty: nothing is missing."""
    settings = {field.name for field in fields(Configuration)}
    known = {
        "_keepalive_time": "_keepalive_time" in settings,
        "_protocol_factory": hasattr(Server, "_protocol_factory") and hasattr(Channel, "_protocol_factory"),
        "_connection": "_connection" in H2Connection.__init__.__code__.co_names,
    }
    return ", ".join(name for name, there in known.items() if not there)


def server_configuration() -> Configuration:
    """Return grpclib's settings for a server whose connections have a Keepalive of their own."""
    return Configuration(_keepalive_time=None)


def server_protocol(server: Any) -> Any:
    """Return the protocol of a new connection of a grpclib server, which the caller joins to a transport."""
    return server._protocol_factory()


def ping(protocol: Any) -> None:
    """Send a ping on the connection of a grpclib protocol."""
    connection = protocol.connection
    if not connection.is_closing():
        connection._connection.ping(bytes(8))
        connection.flush()


def limit_streams(protocol: Any, streams: int) -> None:
    """Set how many streams the peer of a connected protocol may have open together."""
    connection = protocol.connection
    connection._connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: streams})
    connection.flush()


def watch_floods(protocol: Any, allowed: Callable[[CheapFrames], bool]) -> None:
    """Ask `allowed` before a new protocol reads frames that cost its peer nothing. After a no, it reads nothing."""
    counter, read = FrameCounter(), protocol.data_received
    ended = False

    def data_received(data: bytes) -> None:
        nonlocal ended
        cheap = counter.count(data)
        ended = ended or (any(cheap) and not allowed(cheap))
        if not ended:
            read(data)

    protocol.data_received = data_received


class NetworkChannel(Channel):
    """A channel that keeps its transport, and the error by which the connection ended: grpclib itself drops both."""

    def __init__(self, host: str, port: int, **options: Any) -> None:
        super().__init__(host, port, **options)
        self.transport: Any = None
        self.protocol: Any = None
        self.ended_by: BaseException | None = None

    def _protocol_factory(self) -> Any:
        protocol: Any = super()._protocol_factory()
        self.protocol = protocol
        made, lost = protocol.connection_made, protocol.connection_lost

        def connection_made(transport: Any) -> None:
            self.transport = transport
            made(transport)

        def connection_lost(error: BaseException | None) -> None:
            self.ended_by = error
            lost(error)

        protocol.connection_made, protocol.connection_lost = connection_made, connection_lost
        return protocol

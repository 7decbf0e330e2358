"""Accepts network connections: limits, TLS, one gRPC server for each, and a tick of a second for all.

accept ─▶ ConnectionLimits ─▶ TlsProtocol ─▶ HTTP/2 of grpclib ─▶ handlers of this connection
                                         ▲ tick: keepalive, login, changed certificates
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grpclib.server import Server

from snakepit.pools.adapters.network.certificate_file import next_end
from snakepit.pools.adapters.network.connections import ConnectionLimits, Counts, NetworkPeer
from snakepit.pools.adapters.network.identity import CertificateRights, KeySource, NoKeys
from snakepit.pools.adapters.network.keys import KeyCache
from snakepit.pools.adapters.network.tls import ServerTls, TlsError, TlsFiles, is_of
from snakepit.pools.adapters.network.tls_transport import HandshakeFailed, TlsProtocol
from snakepit.pools.broker.node_status import ListenerStatus
from snakepit.pools.listening import ListenAddress
from snakepit.workers.transport.frames import CheapFrames
from snakepit.workers.transport.grpclib_connections import (
    limit_streams,
    missing_names,
    ping,
    server_protocol,
    watch_floods,
)
from snakepit.workers.transport.grpclib_internals import versions
from snakepit.workers.transport.keepalive import TICK, Keepalive

BACKLOG = 1024
MOST_REFUSALS = 100  # requests without rights of a connection that has shown none
PAUSE = 0.1  # seconds after a failed accept: no descriptor is free

logger = logging.getLogger("snakepit.listener")


class ListenError(Exception):
    """The listener cannot start; the message names the setting."""


@dataclass(frozen=True, slots=True)
class ListenConfig:
    """The settings of the listener."""

    addresses: tuple[str, ...] = ()  # none: the broker has only its Unix socket
    tls: TlsFiles | None = None
    certificates: Mapping[str, CertificateRights] = field(default_factory=dict)
    keys: KeySource = field(default_factory=NoKeys)
    key_share: float = 1.0
    connections: int = 1024
    connections_per_host: int = 256
    streams: int = 100
    handshake_timeout: float = 5.0
    login_timeout: float = 10.0


NO_LISTENER = ListenConfig()


class Listener:
    """Takes connections from `start` to `close`. `serve` makes the gRPC server of one connection."""

    def __init__(self, config: ListenConfig, serve: Callable[[NetworkPeer], Server]) -> None:
        self.config = config
        self.counts = Counts()
        self._serve = serve
        self._loop = asyncio.get_running_loop()
        self._keys = KeyCache(config.keys, self._loop.time)
        self._limits = ConnectionLimits(config.connections, config.connections_per_host)
        self._connections: set[NetworkPeer] = set()
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        try:
            self.tls = ServerTls(config.tls) if config.tls else None
        except TlsError as error:
            raise ListenError(str(error)) from error

    def bind(self) -> None:
        """Bind every address; raises ListenError, and binds nothing then. A connection waits until `start`."""
        address = ""
        if self.config.addresses and (missing := missing_names()):
            raise ListenError(f"LISTEN: {versions()} has no {missing}: install the versions that Snakepit names")
        try:
            for address in self.config.addresses:
                self._sockets += bind(ListenAddress.parse(address), self.config.addresses)
        except (OSError, ValueError) as error:
            self.close()
            raise ListenError(f"LISTEN: {address}: {getattr(error, 'strerror', None) or error}") from error

    def start(self) -> None:
        """Accept connections."""
        if self.tls is None:
            for address in self.config.addresses:
                if not ListenAddress.parse(address).is_loopback:
                    logger.warning("%s takes calls WITHOUT TLS: keys and data can be read on the network", address)
        if not self._sockets:
            return
        for one in self._sockets:
            self._listen(one)
            logger.info("gRPC on %s, TLS: %s", _name(one), self.tls.kind if self.tls else "none")
        self._start(self._tick())

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _listen(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Not by `sock_accept`: a task that is cancelled loses the connection that it has just got."""
        try:
            accepted, peer = listening.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            logger.warning("no connection was accepted: %s", error)
            self._loop.remove_reader(listening)
            self._loop.call_later(PAUSE, self._listen, listening)
            return
        accepted.setblocking(False)
        host = str(peer[0])
        if refused := self._limits.enter(host):
            self._refuse(refused, host, "the limit of connections is reached")
            accepted.close()
            return
        # A task that is cancelled before its first step never had the connection; a transport has let go by then.
        self._start(self._open(accepted, host)).add_done_callback(
            lambda opening: accepted.close() if opening.cancelled() else None
        )

    def _refuse(self, reason: str, host: str, message: str) -> None:
        self.counts.refused[reason] += 1
        logger.info("a connection from %s was refused (%s): %s", host, reason, message)

    async def _open(self, accepted: socket.socket, host: str) -> None:
        config = self.config
        connection = NetworkPeer(host, self._keys, config.certificates, config.key_share)
        left = False

        def leave() -> None:
            nonlocal left
            if not left:
                left = True
                self._limits.leave(host)
                self._connections.discard(connection)

        try:
            transport, protocol = await self._connected(accepted, connection, leave)
        except (HandshakeFailed, OSError) as error:
            self._refuse(getattr(error, "reason", "closed_by_client"), host, str(error))
            self._loop.call_later(PAUSE, leave)
            return
        keepalive = Keepalive(transport, lambda: ping(protocol))
        connection.opened(transport, keepalive, self._loop.time() + config.login_timeout)
        limit_streams(protocol, config.streams)
        self.counts.accepted += 1
        if not left:
            self._connections.add(connection)

    async def _connected(
        self, accepted: socket.socket, connection: NetworkPeer, leave: Callable[[], None]
    ) -> tuple[Any, Any]:
        """Return the transport and the HTTP/2 protocol of a connection whose handshake has ended."""
        made: list[Any] = []

        def make() -> Any:
            protocol = server_protocol(self._serve(connection))
            made_of, lost = protocol.connection_made, protocol.connection_lost

            def connection_made(transport: Any) -> None:
                connection.transport = transport
                made_of(transport)

            def connection_lost(error: BaseException | None) -> None:
                leave()
                lost(error)

            protocol.connection_made, protocol.connection_lost = connection_made, connection_lost
            watch_floods(protocol, lambda frames: self._allows(connection, frames))
            made.append(protocol)
            return protocol

        if self.tls is None:
            transport, protocol = await self._loop.connect_accepted_socket(make, accepted)
            return transport, protocol
        context = self.tls.loaded.context
        raw, tls = await self._loop.connect_accepted_socket(
            lambda: TlsProtocol(context, make, self.config.handshake_timeout), accepted
        )
        try:
            protocol = await tls.ready
        except asyncio.CancelledError:
            raw.abort()
            raise
        return tls.transport, protocol

    def _allows(self, connection: NetworkPeer, frames: CheapFrames) -> bool:
        flood = connection.find_flood(self._loop.time(), self.config.streams, frames)
        if flood:
            self._end(connection, "flood", f"the client {flood} faster than any client needs to")
        return not flood

    # Every second

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            if self.tls is not None and (removed := self.tls.reload()):
                for connection in tuple(self._connections):
                    if connection.is_verified and is_of(removed, connection.certificate, connection.der):
                        self._end(connection, "certificate_removed", "its certificate is not trusted any more")
            now = self._loop.time()
            for connection in tuple(self._connections):
                if connection.keepalive is not None:
                    connection.keepalive.tick()
                    if connection.keepalive.found_dead:
                        self._end(connection, "dead_peer", "the peer does not answer")
                if connection.refusals > MOST_REFUSALS:
                    self._end(connection, "no_login", f"{connection.refusals} requests came without a valid API key")
                elif connection.login_by and now > connection.login_by:
                    limit = self.config.login_timeout
                    self._end(connection, "no_login", f"no request with a valid API key came within {limit:g} s")

    def _end(self, connection: NetworkPeer, reason: str, message: str) -> None:
        self._refuse(reason, connection.host, message)
        connection.transport.abort()

    # Looking

    def status(self) -> tuple[ListenerStatus, ...]:
        """The listener's state: one entry for each bound address, with the figures of all of them."""
        tls, counts, now = self.tls, self.counts, time.time()
        own = tls.loaded.own if tls else (0.0, 0.0)
        authorities = next_end(tls.loaded.authorities, now) if tls else (0.0, 0.0)
        return tuple(
            ListenerStatus(
                address=_name(one),
                tls=tls.kind if tls else "none",
                certificate_expires=own[1],
                problem=tls.problem(now) if tls else "",
                connections=len(self._connections),
                accepted=counts.accepted,
                refused=dict(counts.refused),
                lists_expire=tls.loaded.lists.expires if tls else 0.0,
                lists_issued=tls.loaded.lists.issued if tls else 0.0,
                certificate_issued=own[0],
                authorities_expire=authorities[1],
                authorities_issued=authorities[0],
            )
            for one in self._sockets
        )

    def stop_accepting(self) -> None:
        """Take no more connections; those that are open stay."""
        for task in self._tasks:
            task.cancel()
        for one in self._sockets:
            if one.fileno() >= 0:
                self._loop.remove_reader(one)
            one.close()

    def close(self) -> None:
        """Stop accepting and close every connection."""
        self.stop_accepting()
        for connection in tuple(self._connections):
            with contextlib.suppress(Exception):
                connection.transport.close()
        self._keys.close()


def bind(address: ListenAddress, all_addresses: Sequence[str]) -> list[socket.socket]:
    """Listen on an address, and on all of a host's addresses where it is a name."""
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    both = address.host == "::" and not any(
        ":" not in other.host and other.port == address.port for other in map(ListenAddress.parse, all_addresses)
    )
    made: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, _, _, _, where in dict.fromkeys(found):
            try:
                made.append(_listening(family, where, only_ipv6=not both))
            except OSError as error:  # `localhost` is ::1, too, in a container without IPv6
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                absent = error
        if absent is not None and not made:
            raise absent
    except OSError:
        for one in made:
            one.close()
        raise
    return made


def _listening(family: int, where: Any, *, only_ipv6: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_ipv6)
        made.bind(where)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _name(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return str(ListenAddress(str(host), int(port)))

"""The client's end of a connection over a network: its channel, its keepalive, and the reason of its end."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import StreamTerminatedError

from snakepit.pools.broker.errors import BrokerError, BrokerUnreachable
from snakepit.pools.client.address import Target
from snakepit.pools.client.loop_thread import ClientLoop
from snakepit.pools.client.tls import Tls, find_refusal
from snakepit.workers.transport.grpclib_connections import NetworkChannel, missing_names, ping
from snakepit.workers.transport.grpclib_internals import versions
from snakepit.workers.transport.keepalive import Keepalive

logger = logging.getLogger("snakepit.client")


class WatchedChannel(NetworkChannel):
    """A channel to a host and port, with a Keepalive once it is connected."""

    keepalive: Keepalive | None = None

    def watch(self) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(loop, ClientLoop):
            loop.network_transports.add(self.transport)
        if missing := missing_names():
            logger.warning("no keepalive: %s has no %s", versions(), missing)
            return
        self.keepalive = Keepalive(self.transport, partial(ping, self.protocol))
        self.keepalive.run()


def make_channel(target: Target, window: int) -> WatchedChannel:
    context = target.tls.context() if isinstance(target.tls, Tls) else target.tls or None
    name = target.server_name or (target.tls.server_name if isinstance(target.tls, Tls) else "")
    if context is not None:
        context.set_alpn_protocols(["h2"])
    settings = Configuration(
        http2_connection_window_size=window, http2_stream_window_size=window, ssl_target_name_override=name or None
    )
    return WatchedChannel(target.host, target.port, ssl=context, codec=ProtoCodec(), config=settings)


def reason_of_end(channel: Channel, target: Target, error: BaseException) -> BrokerError | None:
    """Why a network connection ended, where that is known; None: the error of the stream says as much."""
    if not isinstance(channel, WatchedChannel):
        return None
    if channel.keepalive is not None and channel.keepalive.found_dead:
        return BrokerUnreachable(f"The broker at {target} does not answer any more: its host or the network is lost.")
    if target.tls is None and isinstance(error, StreamTerminatedError):
        return BrokerUnreachable(f"The broker at {target} ended the connection. If it takes TLS, pass tls=Tls(ca=...).")
    return find_refusal(channel.ended_by, target)

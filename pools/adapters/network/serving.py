"""The gRPC server of one network connection: the methods with the rights of the peer, health and reflection."""

from __future__ import annotations

from collections.abc import Callable

from grpclib.const import Status
from grpclib.events import RecvRequest, listen
from grpclib.exceptions import GRPCError
from grpclib.reflection.service import ServerReflection
from grpclib.server import Server

from snakepit.pools.adapters.grpc.health import PoolHealth
from snakepit.pools.adapters.grpc.service import BrokerService
from snakepit.pools.adapters.network.connections import NetworkPeer
from snakepit.pools.adapters.network.listener import ListenConfig, Listener
from snakepit.pools.adapters.records.recent_events import RecentEvents
from snakepit.pools.broker.broker import Broker
from snakepit.pools.broker.errors import BrokerError
from snakepit.workers.transport.grpclib_connections import server_configuration

REFLECTION = "/grpc.reflection."


def make_listener(config: ListenConfig, broker: Broker, recent: RecentEvents, metrics: Callable[[], str]) -> Listener:
    """A listener that serves this broker. Bind and start it."""
    settings = server_configuration()

    def serve(connection: NetworkPeer) -> Server:
        service = BrokerService(broker, recent, metrics, connection)
        server = Server(ServerReflection.extend([service, PoolHealth(broker, connection.may_see)]), config=settings)

        async def check(event: RecvRequest) -> None:
            if event.method_name.startswith(REFLECTION):
                try:
                    await connection.rights(event.metadata)
                except BrokerError as error:
                    raise GRPCError(Status[error.grpc_status], error.message) from None

        listen(server, RecvRequest, check)
        return server

    listener = Listener(config, serve)
    broker.listeners = listener.status
    return listener

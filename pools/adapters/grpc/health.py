"""The standard health service of gRPC: of the broker, and of each pool under its name.

    ""                          SERVING until the broker stops
    snakepit.broker.v1.Broker   SERVING while the node takes calls: it neither stops nor is drained
    the name of a pool          SERVING while the node takes calls, and a worker of the pool is ready

A load balancer reads the last two; a supervisor that restarts a dead process reads the first one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.health.v1.health_grpc import HealthBase
from grpclib.health.v1.health_pb2 import HealthCheckResponse

from snakepit.pools.broker.broker import Broker
from snakepit.pools.broker.pool.worker import State

SERVICE = "snakepit.broker.v1.Broker"
WATCH_EVERY = 0.25  # seconds between two checks for a watcher
SERVING, NOT_SERVING, UNKNOWN = (
    HealthCheckResponse.SERVING,
    HealthCheckResponse.NOT_SERVING,
    HealthCheckResponse.SERVICE_UNKNOWN,
)


def health_of(broker: Broker, service: str) -> HealthCheckResponse.ServingStatus.ValueType:
    """The health of a service; SERVICE_UNKNOWN: the broker has none of this name."""
    if not service:
        return NOT_SERVING if broker.node.stopping else SERVING
    if service == SERVICE:
        return SERVING if broker.node.serving else NOT_SERVING
    runner = broker.runners.get(service)
    if runner is None:
        return UNKNOWN
    pool = runner.pool
    takes = broker.node.serving and not pool.spec.paused and not pool.worker_set.closing
    return SERVING if takes and pool.worker_set.among(State.READY) else NOT_SERVING


class PoolHealth(HealthBase):
    """`may_see` returns whether the peer of a request may see a pool; any other pool is unknown to it."""

    def __init__(self, broker: Broker, may_see: Callable[[Any, str], Awaitable[bool]] | None = None) -> None:
        self._broker = broker
        self._may_see = may_see

    async def _seen(self, stream: Any) -> str | None:
        """The service that a request names; None: the peer may not see it."""
        request = await stream.recv_message()
        if request is None:
            raise GRPCError(Status.INVALID_ARGUMENT, "The request is missing.")
        service: str = request.service
        if service in ("", SERVICE) or self._may_see is None or await self._may_see(stream.metadata, service):
            return service
        return None

    async def Check(self, stream: Any) -> None:
        service = await self._seen(stream)
        health = UNKNOWN if service is None else health_of(self._broker, service)
        if health == UNKNOWN:
            raise GRPCError(Status.NOT_FOUND, "this broker has no pool of this name")
        await stream.send_message(HealthCheckResponse(status=health))

    async def Watch(self, stream: Any) -> None:
        service = await self._seen(stream)
        last = None
        while True:
            health = UNKNOWN if service is None else health_of(self._broker, service)
            if health != last:
                last = health
                await stream.send_message(HealthCheckResponse(status=health))
            await asyncio.sleep(WATCH_EVERY)

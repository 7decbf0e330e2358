"""The peer of a connection, and what it may do. A client of the Unix socket may do everything: it has the token."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from snakepit.pools.broker import errors
from snakepit.pools.broker.broker import Broker
from snakepit.pools.broker.caller import CallerIdentity
from snakepit.pools.broker.messages import Request
from snakepit.pools.broker.status import BrokerStatus

CHECK_EVERY = 3.0  # seconds between two checks of the rights of an open session


class PeerRights(Protocol):
    """An authenticated caller of the network. Its methods raise PermissionDenied, as for a request of REST."""

    @property
    def actor(self) -> str: ...

    @property
    def pools(self) -> frozenset[str] | None: ...

    @property
    def quota(self) -> CallerIdentity: ...

    def check(self, permission: str, pool: str = "") -> None: ...

    def check_pool(self, pool: str) -> None: ...

    def may_use(self, pool: str) -> bool: ...


class Peer(Protocol):
    """One network connection."""

    async def rights(self, metadata: Mapping[str, Any]) -> PeerRights:
        """The rights of a request with this metadata; raises Unauthenticated."""
        ...


# What a request needs beside its own check of a pool; the same as the route of REST.
NEEDS: dict[str, tuple[str, ...]] = {
    "Execute": ("run_command",),
    "ExecuteStream": ("run_command",),
    "Status": ("view_pool",),
    "Commands": ("view_pool",),
    "Plan": ("view_pool", "view_worker"),
    "Metrics": ("view_pool", "view_worker"),
    "Sweep": ("operate_pool",),
    "Apply": ("operate_pool",),
    "Recycle": ("operate_pool",),
    "Drain": ("operate_pool",),
    "Kill": ("operate_pool",),
    "Dump": ("operate_pool",),
}
WHOLE_NODE = frozenset({"Sweep", "Drain", "Metrics", "Apply"})  # not for a caller that may use some pools only


class Allowed:
    """What one request may do."""

    def __init__(self, rights: PeerRights | None) -> None:
        """`rights`: None for a client of the Unix socket."""
        self.rights = rights

    def check_permissions(self, method: str) -> None:
        """Raise PermissionDenied if the caller lacks what a method needs, whatever the pool is."""
        if self.rights is not None:
            for permission in NEEDS[method]:
                self.rights.check(permission)

    def check(self, method: str, pool: str = "") -> None:
        """Raise PermissionDenied if the caller may not use a method, for a pool where there is one."""
        self.check_permissions(method)
        rights = self.rights
        if rights is None:
            return
        if pool:
            rights.check_pool(pool)
        elif rights.pools is not None and method in WHOLE_NODE:
            raise errors.PermissionDenied(f"{rights.actor} may use some pools only; a node has all of them")

    def take(self, requests: Iterable[Request]) -> None:
        """Set the caller of calls to one pool, whatever caller they name; raises PermissionDenied."""
        if self.rights is None:
            return
        for request in requests:
            self.rights.check("run_command", request.pool)
            request.caller = self.rights.quota

    def check_worker(self, method: str, broker: Broker, worker: str) -> None:
        """The same for the pool of a worker. A caller without the right for any pool cannot probe for workers."""
        if self.rights is not None:
            for runner in broker.runners.values():
                if worker in runner.workers:
                    self.check(method, runner.name)

    def actor(self, named: str) -> str:
        """The actor of an order: the caller, and the person that its message names."""
        if self.rights is None:
            return named
        return f"{self.rights.actor} for {named}" if named else self.rights.actor

    def of_pools(self, status: BrokerStatus) -> BrokerStatus:
        """A status without the pools that the caller may not use."""
        rights = self.rights
        if rights is None or rights.pools is None:
            return status
        return replace(
            status,
            pools=tuple(one for one in status.pools if rights.may_use(one.name)),
            workers=tuple(one for one in status.workers if rights.may_use(one.pool)),
            events=tuple(one for one in status.events if one.pool and rights.may_use(one.pool)),
            histograms={name: one for name, one in status.histograms.items() if rights.may_use(name)},
            quotas=(),
        )


class EndedRights(Allowed):
    """The rights of a session that ends: a call that arrives meanwhile gets the reason."""

    def __init__(self, reason: errors.BrokerError) -> None:
        super().__init__(None)
        self._reason = reason

    def take(self, requests: Iterable[Request]) -> None:
        raise self._reason


EVERYTHING = Allowed(None)


class RunnableSession(Protocol):
    """What FollowedRights needs of a session."""

    async def run(self) -> None: ...

    def end_calls(self, reason: errors.BrokerError) -> None: ...


class FollowedRights:
    """The rights behind a session, which stay those of its key: they are looked up again every CHECK_EVERY seconds."""

    def __init__(self, peer: Peer, metadata: Mapping[str, Any]) -> None:
        self._peer = peer
        self._metadata = metadata
        self.allowed = EVERYTHING

    async def begin(self) -> None:
        """Look the rights up; raises Unauthenticated. Each call is checked when it comes."""
        self.allowed = Allowed(await self._peer.rights(self._metadata))

    async def run(self, session: RunnableSession) -> None:
        """Run the session for as long as its client has rights; raises what ended them."""
        running = asyncio.create_task(session.run())
        following = asyncio.create_task(self._follow())
        try:
            await asyncio.wait((running, following), return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                self.allowed = EndedRights(following.result())
                session.end_calls(following.result())
                await asyncio.sleep(0)  # the replies leave at the end of this turn of the loop
                raise following.result()
            await running
        finally:
            following.cancel()
            running.cancel()
            await asyncio.wait((running, following))

    async def _follow(self) -> errors.BrokerError:
        """Keep the rights up to date until they end; returns why they did."""
        while True:
            await asyncio.sleep(CHECK_EVERY)
            try:
                self.allowed = Allowed(await self._peer.rights(self._metadata))
            except errors.BrokerError as error:
                if not isinstance(error, errors.QueueFull):  # else many keys wait to be checked at this moment
                    return error

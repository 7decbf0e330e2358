"""The requests of one key, user or address take turns in a web process, so that no other one waits for all of them.

RequestTurns ─▶ identity ─▶ BodyLimit ─▶ body complete ─▶ turn ─▶ KeyRequests ─▶ Django
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from snakepit.pools.api.identities import identities
from snakepit.pools.api.turns import Turns


class RequestTurns:
    """Wraps an ASGI application, outside of BodyLimit: a body that waits for its turn then counts as incomplete.

    `prefix`: of the paths whose requests take turns. Views of a project that wait long for other services belong
    outside of it, because a request has its turn for up to half a second.
    """

    def __init__(self, application: Any, prefix: str = "/api/") -> None:
        self.application = application
        self._prefix = prefix
        # A server may run several loops in one process.
        self._turns_of: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self.application(scope, receive, send)
            return
        identity = await identities.of(scope)
        await self._turns().run(self.application, identity.name, scope, receive, send)

    def _turns(self) -> Turns:
        loop = asyncio.get_running_loop()
        found = self._turns_of.get(loop)
        if found is None:
            found = self._turns_of[loop] = Turns()
        return found

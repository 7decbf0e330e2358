"""The way of one call over the nodes: the node that it tries next, its remaining time, and the error that remains."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from snakepit.pools.broker.errors import NOT_STARTED, BrokerError, BrokerUnreachable, PoolUnknown
from snakepit.pools.client import stand_in
from snakepit.pools.client.address import Target
from snakepit.pools.client.arguments import EncodedCall
from snakepit.pools.client.routing.discovery import KnownNode
from snakepit.pools.client.routing.policy import MOST_REPEATS, may_move, may_repeat, most_telling
from snakepit.pools.client.routing.router import PATIENCE, Router

MOST_NODES = 5  # nodes that one call tries: more would make an overload of all of them larger


class Trip:
    """Alternates: `leg`, and `failed` with the error of that leg, until one succeeds or one of both raises.

    `fallback`: the broker of this host, or the name behind which the nodes are.
    """

    def __init__(self, router: Router, call: EncodedCall, fallback: Target, *, passed: float = 0.0) -> None:
        self._router, self._call, self._fallback = router, call, fallback
        self._deadline = time.monotonic() + call.timeout - passed if call.timeout else None
        self._node: KnownNode | None = None
        self._tried: list[Target] = []
        self._errors: list[BrokerError] = []
        self._repeats = 0

    def leg(self) -> tuple[Target, EncodedCall]:
        """Return the broker to try, and the call with the time that is left. May wait for the nodes' first answers.

        Raises the error that remains if no node is left, or no time.
        """
        router, pool, key = self._router, self._call.pool, self._call.affinity
        if not self._errors and router.rests(pool, key):
            return self.at_rest(), self._call
        left = self._left()
        if self._errors and (left <= 0 or len(self._tried) >= MOST_NODES):
            raise self._remaining()
        self._node = router.choose(pool, self._tried, left, key)
        if self._node is not None:
            return self._node.target, self._timed()
        if self._errors:
            raise self._remaining()
        # No node is known to take it. The broker at the address may have started just now, and has the best error.
        # Where there is none, a node that is drained has it.
        own = router.own
        if own is None or own.is_absent:
            self._node = next(router.refusing(pool), None)
        return (self.at_rest() if self._node is None else self._node.target), self._timed()

    async def aleg(self) -> tuple[Target, EncodedCall]:
        """As `leg`, for an event loop."""
        call = self._call
        at_once = self._router.is_ready or (not self._errors and self._router.rests(call.pool, call.affinity))
        return self.leg() if at_once else await asyncio.to_thread(self.leg)

    def at_rest(self) -> Target:
        """Begin with the broker of this host."""
        self._node = self._router.own
        return self._fallback

    def at(self, target: Target) -> None:
        """Begin with a node that was chosen before."""
        self._node = self._router.node_at(target)

    def failed(self, error: BrokerError) -> None:
        """Note the end of a leg. Raises if no other node may take the call. May ask a node about the command."""
        self.suspect(error)
        if not is_movable(error) or stand_in.is_used():
            raise error
        if self._node is not None:
            self._router.failed(self._node, self._call.pool, error)
        self._tried.append(self._fallback if self._node is None else self._node.target)
        self._errors.append(error)
        if may_repeat(error):
            self._repeats += 1
            if self._repeats > MOST_REPEATS or not self._router.is_idempotent(self._call.pool, self._call.command):
                raise error

    def suspect(self, error: BrokerError) -> None:
        """Ask the nodes from now on, if the broker was silent beyond a deadline: later calls need not wait for it."""
        if error.details.get("silent") and not stand_in.is_used():
            self._router.wake(0.0)

    async def afailed(self, error: BrokerError) -> None:
        """As `failed`, for an event loop."""
        if may_repeat(error):
            await asyncio.to_thread(self.failed, error)
        else:
            self.failed(error)

    def _remaining(self) -> BrokerError:
        """The error of a call that no node takes."""
        found, pool = most_telling(self._errors), self._call.pool
        if isinstance(found, PoolUnknown) and (silent := self._router.silent(pool)):
            message = (
                f"Pool {pool} lives on {' and '.join(silent)}, which {'does' if len(silent) == 1 else 'do'} not answer."
            )
            return BrokerUnreachable(message, outcome=NOT_STARTED)
        return found

    def _left(self) -> float:
        return PATIENCE if self._deadline is None else self._deadline - time.monotonic()

    def _timed(self) -> EncodedCall:
        """The call with the time that is left. The command's or the pool's default counts anew on each node."""
        return self._call if self._deadline is None else replace(self._call, timeout=max(0.001, self._left()))


def is_movable(error: BrokerError) -> bool:
    """Whether the call may go on elsewhere, perhaps only if its command is idempotent."""
    return may_move(error) or may_repeat(error)

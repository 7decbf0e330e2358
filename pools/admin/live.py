"""The state of pools for the admin, as the broker of this host reports it."""

from __future__ import annotations

from collections.abc import Callable

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.status import PoolStatus
from snakepit.pools.web.last_status import last_status

REASON = 200  # characters of a reason


def live_states() -> Callable[[str], str]:
    """A function from a pool's name to its state, after one question to the broker."""
    try:
        snapshot = last_status.ask()
    except BrokerError:
        return lambda _: "not known: the broker does not answer"
    old = "last known: " if snapshot.trouble else ""
    known = {one.name: f"{old}{described(one)}" for one in snapshot.status.pools}
    return lambda name: known.get(name, "-")


def described(pool: PoolStatus) -> str:
    """The state, the number of ready workers and the reason."""
    reason = f": {pool.reason[:REASON]}" if pool.reason else ""
    return f"{pool.state}, {pool.ready} of {pool.size} ready{reason}"

"""A broker in place of every client's own, for `snakepit.testing`."""

from __future__ import annotations

from snakepit.pools.client.address import Target

current: Target | None = None  # read for each call


def use(target: Target | None) -> Target | None:
    """Send the calls of all clients to this broker, and return the one before it. None: to each client's own."""
    global current
    before, current = current, target
    return before


def is_used() -> bool:
    """Whether a broker stands in for every client's own."""
    return current is not None


def prepare(pool: str) -> None:
    """Have a broker of this process start a pool before the time of a call begins; nothing for any other broker."""
    if current is not None and current.local is not None:
        current.local.prepare(pool)

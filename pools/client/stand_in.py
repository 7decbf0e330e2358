"""A broker in place of every client's own, for `snakepit.testing`."""

from __future__ import annotations

from snakepit.pools.client.address import Target

_current: Target | None = None


def use(target: Target | None) -> Target | None:
    """Send the calls of all clients to this broker, and return the one before it. None: to each client's own."""
    global _current
    before, _current = _current, target
    return before


def resolve(target: Target) -> Target:
    """The broker that takes the calls for this one."""
    return _current or target


def is_used() -> bool:
    """Whether a broker stands in for every client's own."""
    return _current is not None


def prepare(pool: str) -> None:
    """Have a broker of this process start a pool before the time of a call begins; nothing for any other broker."""
    if _current is not None and _current.local is not None:
        _current.local.prepare(pool)

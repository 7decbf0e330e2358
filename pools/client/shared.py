"""The one place where the web side gets its client; tests put a fake here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakepit.pools.client import Client


def client() -> Client:
    """The process's shared client of this node's broker. No connection is made before the first call."""
    from snakepit.pools.client import connect

    return connect()

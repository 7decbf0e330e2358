"""The client that the web processes share; tests replace it with a fake."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakepit.pools.client import Client


def client() -> Client:
    """The process's shared client of this node's broker. No connection is made before the first call."""
    from snakepit.pools.client import connect

    return connect()

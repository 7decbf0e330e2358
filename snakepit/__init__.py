"""Pools of warm Python workers for Django: the names that adapters and callers import.

>>> from snakepit import Adapter, command
>>> class Greeter(Adapter):
...     @command
...     def greet(self, name: str) -> str:
...         return f"Hello {name}"
>>> Greeter().greet(name="Ada")
'Hello Ada'

A caller needs one more name, `connect` (see `snakepit.pools.client`):

    client = connect()
    client.call("greeter", "greet", name="Ada")

A test of such code needs `override_pools` (see `snakepit.testing`).

Importing this package imports nothing else: adapters run in interpreters that have no Django and no gRPC, and callers
need no adapter. A name is loaded from its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakepit.pools.celery_setup import configure_celery
    from snakepit.pools.client import Client, Json, PoolClient, Tls, connect
    from snakepit.testing import override_pools
    from snakepit.workers import Adapter, CallCancelled, Context, Snooze, command, locked

_SOURCES = {
    "Adapter": "snakepit.workers",
    "CallCancelled": "snakepit.workers",
    "Client": "snakepit.pools.client",
    "Context": "snakepit.workers",
    "Json": "snakepit.pools.client",
    "PoolClient": "snakepit.pools.client",
    "Snooze": "snakepit.workers",
    "Tls": "snakepit.pools.client",
    "command": "snakepit.workers",
    "configure_celery": "snakepit.pools.celery_setup",
    "connect": "snakepit.pools.client",
    "locked": "snakepit.workers",
    "override_pools": "snakepit.testing",
}

__all__ = [
    "Adapter",
    "CallCancelled",
    "Client",
    "Context",
    "Json",
    "PoolClient",
    "Snooze",
    "Tls",
    "command",
    "configure_celery",
    "connect",
    "locked",
    "override_pools",
]


def __getattr__(name: str) -> object:
    source = _SOURCES.get(name)
    if source is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(source), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Test code that calls pools, without a broker, a message transport or another process.

    with override_pools({"digits": Digits}) as pools:
        response = client.get("/digits/")
        pools.calls.assert_called_with("digits", "classify", pixels=[0.0] * 64)

The adapter runs in the test's own process, on threads, behind the real broker core: signature check, conversion of
values, errors, streams, deadlines, queues and cancellation are the product's own code. See docs/howto/testing.md.

Importing this package loads neither Django nor gRPC; a name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakepit.testing.calls import Calls, MadeCall
    from snakepit.testing.pools import Pools, active_pools, override_pools, run_jobs

if __name__ != "snakepit.testing":  # a second import under another name would override nothing
    raise ImportError(f"import snakepit.testing, not {__name__}")

_SOURCES = {
    "Calls": "snakepit.testing.calls",
    "MadeCall": "snakepit.testing.calls",
    "Pools": "snakepit.testing.pools",
    "active_pools": "snakepit.testing.pools",
    "override_pools": "snakepit.testing.pools",
    "run_jobs": "snakepit.testing.pools",
}

__all__ = ["Calls", "MadeCall", "Pools", "active_pools", "override_pools", "run_jobs"]


def __getattr__(name: str) -> object:
    source = _SOURCES.get(name)
    if source is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(source), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

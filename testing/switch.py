"""SNAKEPIT["TEST"]: the pools of the settings in this process, from the start of Django to its end.

Nothing ends them with the process: their threads are daemons, and at that time no thread can be started for a teardown.
"""

from __future__ import annotations

from snakepit.testing.pools import override_pools

_permanent: override_pools | None = None


def follow(*, on: bool) -> None:
    """Begin or end what the setting asks for."""
    global _permanent
    if on and _permanent is None:
        _permanent = override_pools()
        _permanent.__enter__()
    elif not on and _permanent is not None:
        ending, _permanent = _permanent, None
        ending.__exit__(None, None, None)

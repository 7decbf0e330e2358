"""The errors for names that a caller sent and the broker does not know, with the nearest known name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from snakepit.pools.broker.errors import CommandUnknown

LONGEST_NAME = 100  # characters of a name that a caller sent, in an error


def no_command(pool: str, name: str, known: Iterable[str]) -> CommandUnknown:
    """Return the error of an unknown command, with the nearest name or all names."""
    names, name = sorted(known), bounded(name)
    hint = nearest(name, names) or f" It has: {', '.join(names) or 'none'}."
    return CommandUnknown(f"Pool {pool} has no command {name!r}.{hint}", details={"command": name, "commands": names})


def bounded(name: str) -> str:
    """A name that a caller sent, short enough to be compared and shown: it may have megabytes.

    >>> bounded("x" * 1000) == "x" * 99 + "…"
    True
    """
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def nearest(name: str, known: Iterable[str]) -> str:
    """Ask for the nearest of some names, as a sentence; empty if none is near.

    >>> nearest("cuont", ["count", "factor"])
    ' Did you mean count?'
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""

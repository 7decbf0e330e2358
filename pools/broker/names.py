"""Names that callers send, in errors: bounded, and with the nearest known one; pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST_NAME = 100  # characters of a name that a caller sent, in an error


def bounded_name(name: str) -> str:
    """A name that a caller sent, short enough to be compared and shown: it may have megabytes.

    >>> bounded_name("x" * 1000) == "x" * 99 + "…"
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

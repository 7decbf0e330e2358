"""Refuse a JSON object that has a key twice: a parser would keep one of the values without a word.

>>> json.loads('{"below": 1, "below": 2}', object_pairs_hook=unrepeated)
Traceback (most recent call last):
    ...
snakepit.pools.broker.json_keys.RepeatedKey: contains the key 'below' twice in one object
"""

from __future__ import annotations

import json
from typing import Any


class RepeatedKey(ValueError):
    """An object has a key twice. The message is a predicate, to follow a name."""


def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs: an `object_pairs_hook`."""
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise RepeatedKey(f"contains the key {name[:100]!r} twice in one object")
            seen.add(name)
    return value


def loads(text: str) -> Any:
    """Parse JSON of which no object has a key twice."""
    return json.loads(text, object_pairs_hook=unrepeated)

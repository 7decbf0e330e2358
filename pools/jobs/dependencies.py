"""The arguments of a job that receives the results of its predecessors. Pure: no I/O.

>>> merged({"scale": 2}, [("parts", 1, "b"), ("parts", 0, "a"), ("first", None, 5), ("", None, 9)])
{'scale': 2, 'first': 5, 'parts': ['a', 'b']}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def merged(arguments: Mapping[str, Any], results: Iterable[tuple[str, int | None, Any]]) -> dict[str, Any]:
    """The arguments with the results of predecessors: (argument, place in its list or None, result)."""
    found = dict(arguments)
    lists: dict[str, dict[int, Any]] = {}
    for name, position, value in results:
        if name and position is None:
            found[name] = value
        elif name and position is not None:
            lists.setdefault(name, {})[position] = value
    return found | {name: [values[place] for place in sorted(values)] for name, values in lists.items()}

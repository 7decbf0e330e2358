"""A job's arguments between the caller and the row: strict JSON, with bytes as {"$bytes": base64}.

>>> store({"image": b"PNG", "scale": 2})
{'image': {'$bytes': 'UE5H'}, 'scale': 2}
>>> restore({"image": {"$bytes": "UE5H"}, "scale": 2})
{'image': b'PNG', 'scale': 2}
"""

from __future__ import annotations

import binascii
import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from snakepit.pools import conf
from snakepit.pools.broker.errors import BadArguments, PayloadTooLarge
from snakepit.pools.models.strict_json import find_problem, scrub


def store(arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments as the row holds them; what a database would refuse is refused by name."""
    if arguments is None:
        return {}
    if not isinstance(arguments, Mapping):
        raise BadArguments(f"arguments: must be an object of keyword arguments, not {type(arguments).__name__}")
    stored = {}
    for name, value in arguments.items():
        if not isinstance(name, str):
            raise BadArguments(f"arguments: {name!r} is not the name of an argument; names are strings")
        plain = {"$bytes": b64encode(value).decode()} if isinstance(value, bytes | bytearray | memoryview) else value
        if problem := find_problem({name: plain}, max_depth=conf.current().max_depth):
            raise BadArguments(f"{name}: {problem}", details={"argument": name})
        stored[name] = plain
    return stored


def check_size(arguments: Mapping[str, Any], limit: int) -> None:
    size = len(json.dumps(arguments, ensure_ascii=False, separators=(",", ":")).encode())
    if size > limit:
        raise PayloadTooLarge(f"The arguments have {size} bytes; the pool takes {limit}.", details={"limit": limit})


def restore(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in arguments.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"$bytes"} and isinstance(value["$bytes"], str):
        try:
            return binascii.a2b_base64(value["$bytes"])
        except binascii.Error:
            return value
    return value


def storable(value: Any) -> Any:
    """A result or chunk as every database holds it; bytes inside as {"$bytes": base64}."""
    if isinstance(value, bytes):
        return {"$bytes": b64encode(value).decode()}
    if isinstance(value, dict):
        return {scrub(str(key)): storable(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [storable(child) for child in value]
    return scrub(value)

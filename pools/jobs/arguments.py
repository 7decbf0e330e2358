"""Convert a job's arguments for its row: strict JSON, with tags for what JSON does not have ({"$bytes": base64}).

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
from snakepit.pools.broker.errors import BadArguments
from snakepit.pools.broker.size_errors import arguments_too_large
from snakepit.pools.client import Json
from snakepit.pools.client.arguments import MAX_MESSAGE
from snakepit.pools.jobs.shown_value import shown
from snakepit.pools.models.strict_json import find_problem, scrub
from snakepit.workers.schema import typed
from snakepit.workers.schema.not_carried import NotCarried, ValueTooLarge


def store(arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    """Convert arguments for the row. BadArguments names an argument that a database would reject."""
    if arguments is None:
        return {}
    plain = isinstance(arguments, Json)
    if not isinstance(arguments, Mapping):
        raise BadArguments(f"arguments: must be a dict of keyword arguments, not {type(arguments).__name__}")
    stored = {}
    for name, value in arguments.items():
        if not isinstance(name, str):
            raise BadArguments(f"arguments: the name {shown(name)} must be a string")
        if problem := find_problem(name):
            raise BadArguments(f"arguments: the name {shown(name)} {problem}")
        tree = value if plain else _tree(name, value)
        if problem := find_problem({name: tree}, max_depth=conf.current().max_depth):
            raise BadArguments(f"{name}: {problem}", details={"argument": name})
        stored[name] = tree
    return stored


def _tree(name: str, value: Any) -> Any:
    """The value as JSON, with tags for what JSON does not have."""
    try:
        if typed.is_plain(value, typed.TextRoom(MAX_MESSAGE, "arguments")):
            return value
        return typed.Tagger(MAX_MESSAGE, "arguments").tree(value, 1)
    except NotCarried as problem:
        path = f"{name}{problem.path}"
        raise BadArguments(f"{path}: {problem.reason}", details={"argument": name, "path": path}) from None
    except ValueTooLarge as problem:
        raise BadArguments(f"{name}: {problem}", details={"argument": name}) from None


def check_size(pool: str, arguments: Mapping[str, Any], limit: int) -> None:
    size = len(json.dumps(arguments, ensure_ascii=False, separators=(",", ":")).encode())
    if size > limit:
        raise arguments_too_large(pool, size, limit)


def restore(arguments: Mapping[str, Any]) -> Json:
    """The arguments of a row for a call, whose result comes in its JSON form, as the row stores it."""
    return Json({name: _plain(value) for name, value in arguments.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"$bytes"} and isinstance(value["$bytes"], str):
        try:
            return binascii.a2b_base64(value["$bytes"])
        except binascii.Error:
            return value
    return value


def storable(value: Any) -> Any:
    """Convert a result or chunk for any database; bytes inside become {"$bytes": base64}."""
    if isinstance(value, bytes):
        return {"$bytes": b64encode(value).decode()}
    if isinstance(value, dict):
        return {scrub(str(key)): storable(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [storable(child) for child in value]
    return scrub(value)

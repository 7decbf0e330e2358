"""Check stored arguments against a command's JSON Schema. Pure: no I/O.

The schema comes from the SDK, so only its keywords are read. What a schema does not state, such as the format of a
date, is left to the worker. Bytes are {"$bytes": base64} here, and text in base64 is accepted in their place.

>>> schema = {"properties": {"pixels": {"type": "array", "items": {"type": "number"}}}, "required": ["pixels"]}
>>> problems(schema, {"pixels": [1, "2"]})
{'pixels': 'pixels[1] must be number, not a string'}
>>> problems({**schema, "additionalProperties": False}, {"pixls": []})
{'pixls': "pixls is unknown (did you mean 'pixels'?)", 'pixels': 'pixels is missing'}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from snakepit.workers.schema import typed
from snakepit.workers.schema.annotation import nearest
from snakepit.workers.schema.checker import describe

Schema = Mapping[str, Any]
# Exact types, as in a worker: true is no integer, and 2.0 is none either.
TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: type(value) is bool,
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) in (int, float),
    "string": lambda value: type(value) is str,
    "array": lambda value: isinstance(value, list | tuple),
    "object": lambda value: isinstance(value, Mapping) and not is_bytes(value),
}


class _Mismatch(Exception):
    """(where in the argument, what is wrong)."""


def problems(schema: Schema, arguments: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with each argument; empty if they fit."""
    properties: Schema = schema.get("properties", {})
    rest = schema.get("additionalProperties", True)
    definitions: Schema = schema.get("$defs", {})
    found: dict[str, str] = {}
    for name, value in arguments.items():
        if name not in properties and rest is False:
            found[name] = f"{name} is unknown" + nearest(name, properties)
            continue
        try:
            _check(properties.get(name, rest), value, definitions, "")
        except _Mismatch as mismatch:
            path, message = mismatch.args
            found[name] = f"{name}{path} {message}"
    found.update({name: f"{name} is missing" for name in schema.get("required", ()) if name not in arguments})
    return found


def is_bytes(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"$bytes"} and isinstance(value["$bytes"], str)


def is_tagged(value: Any) -> bool:
    """Whether it is a value with a tag, which stands for a type that JSON does not have."""
    return isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in typed.RESTORE


def _check(schema: Any, value: Any, definitions: Schema, path: str) -> None:
    if not isinstance(schema, Mapping):  # true: anything
        return
    if "$ref" in schema:
        schema = definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
    if "anyOf" in schema:
        _check_any(schema["anyOf"], value, definitions, path)
    if "enum" in schema and not any(type(one) is type(value) and one == value for one in schema["enum"]):
        raise _Mismatch(path, f"must be one of {', '.join(map(repr, schema['enum']))}, not {describe(value)}")
    if "contentEncoding" in schema and is_bytes(value):
        return
    if is_tagged(value) and not is_bytes(value):  # a date, an array, a frame: only the worker has its type
        return
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(TYPES[kind](value) for kind in kinds if kind in TYPES):
        raise _Mismatch(path, f"must be {' or '.join(kinds)}, not {describe(value)}")
    if isinstance(value, list | tuple):
        _check_array(schema, value, definitions, path)
    elif isinstance(value, Mapping) and not is_bytes(value):
        _check_object(schema, value, definitions, path)


def _check_any(members: Any, value: Any, definitions: Schema, path: str) -> None:
    mismatches = []
    for member in members:
        try:
            return _check(member, value, definitions, path)
        except _Mismatch as mismatch:
            mismatches.append(mismatch)
    if mismatches:
        raise max(mismatches, key=lambda mismatch: len(mismatch.args[0]))  # the member that fits best
    return None


def _check_array(schema: Schema, value: Any, definitions: Schema, path: str) -> None:
    for index, (part, member) in enumerate(zip(schema.get("prefixItems", ()), value, strict=False)):
        _check(part, member, definitions, f"{path}[{index}]")
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        raise _Mismatch(path, f"must have {schema.get('minItems', 0)} items, not {len(value)}")
    items = schema.get("items")
    if items == {"type": "number"} and {int, float}.issuperset(map(type, value)):  # long lists of numbers, in C
        return
    if items:
        for index, member in enumerate(value):
            _check(items, member, definitions, f"{path}[{index}]")


def _check_object(schema: Schema, value: Mapping[str, Any], definitions: Schema, path: str) -> None:
    properties: Schema = schema.get("properties", {})
    rest = schema.get("additionalProperties", True)
    for name, member in value.items():
        if name not in properties and rest is False:
            raise _Mismatch(f"{path}.{name}", "is unknown" + nearest(name, properties))
        _check(properties.get(name, rest), member, definitions, f"{path}.{name}")
    for name in schema.get("required", ()):
        if name not in value:
            raise _Mismatch(f"{path}.{name}", "is missing")

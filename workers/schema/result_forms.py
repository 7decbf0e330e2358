"""The JSON Schema of the JSON form of values of NumPy, pandas, Polars, pyarrow and Pillow, and of tags.

An annotation of a library exists only where the library is imported, so this imports none of them.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Sequence
from typing import Any

Schema = dict[str, Any]
PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def array(item: Schema | None = None) -> Schema:
    return {"type": "array", "items": item} if item else {"type": "array"}


def record(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def tagged(tag: str, content: Schema) -> Schema:
    """An object whose one key is a tag.

    >>> tagged("$bytes", {"type": "string"})["required"]
    ['$bytes']
    """
    return {"type": "object", "properties": {tag: content}, "required": [tag], "additionalProperties": False}


def either(members: Sequence[Schema]) -> Schema:
    """One of some schemas; one that allows everything makes the others superfluous.

    >>> either([{"type": "string"}, {"type": "null"}, {"type": "string"}])
    {'anyOf': [{'type': 'string'}, {'type': 'null'}]}
    >>> either([{"type": "string"}, {}])
    {}
    """
    if not all(members):
        return {}
    different = [one for number, one in enumerate(members) if one not in members[:number]]
    return {"anyOf": different} if len(different) > 1 else different[0]


def choice(values: Sequence[Any]) -> Schema:
    """One of some values, for each type of theirs: generators refuse an enumeration of several types.

    >>> choice(["a", 1, None])
    {'anyOf': [{'type': 'string', 'enum': ['a']}, {'type': 'integer', 'enum': [1]}, {'type': 'null'}]}
    """
    kinds = dict.fromkeys(map(type, values))
    if not values or not kinds.keys() <= PLAIN.keys():
        return {}
    parts: list[Schema] = []
    for kind in kinds:
        of_kind = list(dict.fromkeys(one for one in values if type(one) is kind))
        parts.append({"type": PLAIN[kind]} | ({"enum": of_kind} if kind in (str, int) else {}))
    return either(parts)


BYTES = tagged("$bytes", {"type": "string", "contentEncoding": "base64"})
_ANY = array()
_NAMES = array({"type": "string"})
_NULL: Schema = {"type": "null"}
_PANDAS_FRAME = record(index=_ANY, columns=_ANY, data=array(_ANY), index_names=_ANY, column_names=_ANY)
_FRAME = record(columns=_NAMES, data=array(_ANY))

FORMS: dict[tuple[str, str], Schema] = {
    ("pandas", "DataFrame"): _PANDAS_FRAME,
    ("pandas", "Series"): record(index=_ANY, index_names=_ANY, data=_ANY, name={}),
    ("pandas", "Timestamp"): either([{"type": "string", "format": "date-time"}, _NULL]),
    ("pandas", "Timedelta"): either([{"type": "number", "description": "Seconds."}, _NULL]),
    ("polars", "DataFrame"): _FRAME,
    ("polars", "Series"): record(data=_ANY, name={"type": "string"}),
    ("pyarrow", "Table"): _FRAME,
    ("pyarrow", "RecordBatch"): _FRAME,
    ("pyarrow", "Array"): _ANY,
    ("pyarrow", "ChunkedArray"): _ANY,
    ("PIL.Image", "Image"): tagged("$image", _NAMES | {"minItems": 2, "maxItems": 2}),
    ("numpy", "ndarray"): _ANY,
}


def of_library(kind: type) -> Schema | None:
    """The schema of a library's class; None for other classes."""
    for (module, name), schema in FORMS.items():
        owner = getattr(sys.modules.get(module), name, None)
        if isinstance(owner, type) and issubclass(kind, owner):
            return dict(schema)
    numpy: Any = sys.modules.get("numpy")
    generic = getattr(numpy, "generic", None)
    return _element(kind) if isinstance(generic, type) and issubclass(kind, generic) else None


def of_array(origin: type, args: tuple[Any, ...]) -> Schema | None:
    """The schema of NDArray[...], which is ndarray[shape, dtype[scalar type]]; None for other classes."""
    if origin is not getattr(sys.modules.get("numpy"), "ndarray", None):
        return None
    scalars = typing.get_args(args[1]) if len(args) > 1 else ()
    item = _element(scalars[0]) if scalars and isinstance(scalars[0], type) else {}
    shape = typing.get_args(args[0]) if args else ()
    if not shape or Ellipsis in shape:  # of any depth
        of = f" of {item['type']}" if isinstance(item.get("type"), str) else ""
        return _ANY | {"description": f"Nested arrays{of}."}
    for _ in shape:
        item = array(item)
    return item


def _element(kind: type) -> Schema:
    """A NumPy scalar, and an element of an array of such."""
    names = {base.__name__ for base in kind.__mro__}
    for name, schema in _ELEMENTS.items():
        if name in names:
            return dict(schema)
    return {}


_ELEMENTS: dict[str, Schema] = {  # by the abstract classes of NumPy; a timedelta64 is an integer there
    "timedelta64": either([{"type": "number", "description": "Seconds."}, _NULL]),
    "datetime64": either([{"type": "string"}, _NULL]),
    "integer": {"type": "integer"},
    "floating": {"type": "number"},
    "complexfloating": tagged("$complex", array({"type": "number"})),
    "bool": {"type": "boolean"},
    "bool_": {"type": "boolean"},
    "str_": {"type": "string"},
    "bytes_": BYTES,
}

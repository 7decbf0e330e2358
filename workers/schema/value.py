"""Encodes what a command returned: bytes as they are, everything else as JSON.

JSON's own types go through its C encoder. Other objects have one documented form for each type (docs/reference/api.md).
An object without a form becomes a marker that names the type: the caller sees what was there instead of a guess:

    {"$bytes": base64}   {"$float": "nan" | "inf" | "-inf"}   {"$unserializable": "module.Type", "reason": ...}

A value whose form would lose a part raises LossyResult: two keys with the same text, a `timedelta64` of months.
"""

from __future__ import annotations

import base64
import json
import math
import pathlib
import re
from collections import abc, deque
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from snakepit.workers.report import EncodedValue
from snakepit.workers.schema import arrays, json_encode
from snakepit.workers.schema.arrays import LossyResult
from snakepit.workers.schema.signature import MAX_DEPTH, too_deep

MAX_ELEMENTS = 1_000_000  # of an array-like object that is written as a list
MAX_BITS = 14_283  # of an integer: Python converts at most 4,300 digits to text
# A key that may have been a number, True, False or None, which the C encoder writes as text. It matches some other
# keys too, because one set of characters is searched faster than alternatives.
_ODD_KEY = re.compile(rb'"[-0-9tfn][-0-9.e+rulas]*":')


class ValueTooLarge(Exception):
    """The result or chunk is larger than the call's limit."""

    def __init__(self, size: int, limit: int, what: str = "result") -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            f"the {what} has {size:,} bytes and the pool's max_payload is {limit:,}; "
            "return less, stream it in chunks, or raise max_payload"
        )


def type_name(kind: type) -> str:
    """The name of a type, with its module unless it is built in.

    >>> type_name(int), type_name(Decimal)
    ('int', 'decimal.Decimal')
    """
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def marker(value: object, reason: str = "") -> dict[str, str]:
    kind = type(value)
    named = {"$unserializable": f"{kind.__module__}.{kind.__qualname__}"}
    return {**named, "reason": reason} if reason else named


def encode(value: Any, limit: int, what: str = "result") -> EncodedValue:
    """Encode a result or chunk for the link. Raises ValueTooLarge and LossyResult."""
    if isinstance(value, bytes | bytearray | memoryview):
        size = value.nbytes if isinstance(value, memoryview) else len(value)
        if size > limit:
            raise ValueTooLarge(size, limit, what)
        return EncodedValue(bytes(value), raw=True)
    data = encode_json(value, limit, what)
    return EncodedValue(data)


def encode_json(value: Any, limit: int, what: str = "result") -> bytes:
    """Encode any value as JSON. Raises ValueTooLarge and LossyResult.

    >>> encode_json({"when": date(2026, 1, 2), "odd": [float("nan"), object()]}, 1000)
    b'{"when":"2026-01-02","odd":[{"$float":"nan"},{"$unserializable":"builtins.object"}]}'
    """
    data = _encode_fast(value)
    if data is None or too_deep(data) or (_ODD_KEY.search(data) and _repeats_key(data)):
        # Rare: NaN, a cycle, keys that are not strings or have the same text, too deep. Convert it piece by piece.
        data = _to_bytes(_ENCODER.encode(PlainConverter(limit, what).plain(value)))
    if len(data) > limit:
        raise ValueTooLarge(len(data), limit, what)
    return data


def _encode_fast(value: Any) -> bytes | None:
    try:
        return _to_bytes(json_encode.encode(value, _ENCODER.encode))
    except (ValueError, TypeError, RecursionError, OverflowError):
        return None


def _repeats_key(data: bytes) -> bool:
    """Whether an object of the text has a key twice: the C encoder writes 1 and "1" as the same key."""
    repeats = False

    def count(pairs: list[tuple[str, Any]]) -> None:
        nonlocal repeats
        repeats = repeats or len({name for name, _ in pairs}) < len(pairs)

    json.loads(data, object_pairs_hook=count)
    return repeats


def _to_bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate: JSON can escape it, UTF-8 has no code for it
        return json.dumps(json.loads(text), separators=(",", ":")).encode("ascii")


def convert(value: Any) -> Any:
    """Convert an object one step towards types that JSON has; the marker if there is no such step."""
    try:
        if arrays.has_form(value):
            elements = count_elements(value)
            return _too_many(value, elements) if elements > MAX_ELEMENTS else arrays.plain(value)
        for kinds, step in STEPS:
            if isinstance(value, kinds):
                return step(value)
        if is_dataclass(value) and not isinstance(value, type):
            return {field.name: getattr(value, field.name) for field in fields(value)}
        if not isinstance(value, type):
            return _by_method(value)
    except LossyResult:
        raise
    except Exception as error:  # the object's own code failed: the marker says so, the rest of the result is kept
        return marker(value, f"{type(error).__name__} while it was converted")
    return marker(value)


def _by_method(value: Any) -> Any:
    """Convert by a method of the object: pydantic, torch, attrs-like classes."""
    for name in ("model_dump", "tolist", "isoformat", "_asdict", "to_dict"):
        method = getattr(value, name, None)
        if not callable(method):
            continue
        if name in ("tolist", "to_dict"):
            elements = count_elements(value)
            if elements > MAX_ELEMENTS:
                return _too_many(value, elements)
        return method()
    return marker(value)


def _too_many(value: Any, elements: int) -> dict[str, str]:
    return marker(value, f"{elements:,} elements; a list may have {MAX_ELEMENTS:,}, so return bytes")


def count_elements(value: Any) -> int:
    """The size of an array-like object: NumPy and pandas have `size`, torch `numel()`, the rest a length."""
    for name in ("size", "numel"):
        size = getattr(value, name, None)
        if callable(size) and name == "numel":
            size = size()
        if isinstance(size, int):
            return size
    return len(value) if hasattr(value, "__len__") else 1


def _listed(value: set[Any] | frozenset[Any]) -> list[Any]:
    try:
        return sorted(value)  # a set has no order: give the same answer each time, if its items can be sorted
    except TypeError:
        return list(value)


STEPS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    ((bytes, bytearray, memoryview), lambda value: {"$bytes": base64.b64encode(value).decode("ascii")}),
    (Enum, lambda value: value.value),
    ((datetime, date, time), arrays.moment),
    (timedelta, lambda value: value.total_seconds()),
    ((Decimal, UUID, pathlib.PurePath), str),
    ((set, frozenset), _listed),
    ((abc.Set, abc.ValuesView, deque, range), list),
    (abc.Mapping, dict),
)

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=convert)


class PlainConverter:
    """Converts any result into one that the encoder accepts, within limits of depth and size."""

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._nodes = 0
        self._above: set[int] = set()  # ids of the containers around the current value

    def plain(self, value: Any, depth: int = 0) -> Any:
        self._nodes += 1
        if self._nodes > self._limit:  # each node takes at least one byte
            raise ValueTooLarge(self._nodes, self._limit, self._what)
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int):
            return value if value.bit_length() <= MAX_BITS else marker(value, "too many digits")
        if isinstance(value, float):
            return value if math.isfinite(value) else {"$float": float.__repr__(value)}
        if id(value) in self._above:
            return marker(value, "it contains itself")
        if depth > MAX_DEPTH - 2:  # a marker is one level more
            return marker(value, f"nested deeper than {MAX_DEPTH} levels")
        self._above.add(id(value))
        try:
            return self._container(value, depth + 1)
        finally:
            self._above.discard(id(value))

    def _container(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return self._object(value, depth)
        if isinstance(value, list | tuple):
            return [self.plain(item, depth) for item in value]
        # A conversion counts as depth too: it may return an object of the same type, without end.
        return self.plain(convert(value), depth)

    def _object(self, value: dict[Any, Any], depth: int) -> Any:
        plain: dict[str, Any] = {}
        keys: dict[str, Any] = {}
        for key, item in value.items():
            name = key_text(key)
            if name is None:
                return marker(value, f"a key of type {type_name(type(key))}")
            if name in plain:
                raise LossyResult(
                    f"the keys {keys[name]!r} and {key!r} of one dict are both {json.dumps(name)} in JSON, "
                    "so that one of their values would be lost; return a list of pairs"
                )
            keys[name] = key
            plain[name] = self.plain(item, depth)
        return plain


def key_text(key: Any) -> str | None:
    """A dict's key as text: like the C encoder, and for types with one obvious text."""
    if isinstance(key, Enum) and not isinstance(key, str | int | float):
        key = key.value
    if isinstance(key, str):
        return str(key.value) if isinstance(key, Enum) else str(key)
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, int):
        return int.__repr__(key)
    if isinstance(key, float):
        return float.__repr__(key)
    if isinstance(key, datetime | date | time):
        return arrays.moment(key) or "null"
    if isinstance(key, UUID | Decimal | pathlib.PurePath):
        return str(key)
    if arrays.has_form(key):
        plain = arrays.plain(key)
        return key_text(plain) if plain is None or isinstance(plain, str | int | float) else None
    return None

"""Encodes what a command returned: bytes as they are, everything else as JSON.

     a Python caller ──▶ typed.py: tags, so that each value arrives as it was
     a JSON caller ────▶ here: the documented JSON form of each type (docs/reference/values.md)

JSON's own types go through its C encoder. Other objects have one form for each type. An object without a form becomes
a marker that names the type: the caller reads what the object was:

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
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from snakepit.workers.buffers import THRESHOLD, Outgoing
from snakepit.workers.report import EncodedValue
from snakepit.workers.schema import arrays, json_text, kinds, tables, typed
from snakepit.workers.schema.arrays import LossyResult
from snakepit.workers.schema.json_text import MAX_DEPTH, too_deep
from snakepit.workers.schema.kinds import type_name
from snakepit.workers.schema.not_carried import NotCarried, ValueTooLarge
from snakepit.workers.schema.tables import Tag

MAX_ELEMENTS = 1_000_000  # of an array-like object that is written as a list
MAX_BITS = 14_283  # of an integer: Python converts at most 4,300 digits to text
# A key that may have been a number, True, False or None, which the C encoder writes as text. It matches some other
# keys too, because one set of characters is searched faster than alternatives.
_ODD_KEY = re.compile(rb'"[-0-9tfn][-0-9.e+rulas]*":')


def marker(value: object, reason: str = "") -> Tag:
    kind = type(value)
    named = Tag({"$unserializable": f"{kind.__module__}.{kind.__qualname__}"})
    return Tag({**named, "reason": reason}) if reason else named


def encode(
    value: Any, limit: int, what: str = "result", *, tags: bool = False, buffers: Outgoing | None = None
) -> EncodedValue:
    """Encode a result or chunk for the link; with tags for a Python caller. Raises ValueTooLarge and NotCarried.

    `buffers`: takes its large parts, for a Python caller that takes them beside the text.
    """
    if type(value) in typed.SCALARS:
        if type(value) is str and len(value) > limit:
            raise ValueTooLarge(len(value), limit, what, at_least=True)
        try:
            data = json_text.encode_scalar(value).encode()
        except ValueError:  # an integer with too many digits, or a lone surrogate
            data = b""
        if data and len(data) <= limit:
            return EncodedValue(data)
    if isinstance(value, bytes | bytearray | memoryview):
        size = value.nbytes if isinstance(value, memoryview) else len(value)
        if buffers is not None and size >= THRESHOLD:
            return EncodedValue(typed.encode(value, limit, what, buffers), buffers=buffers)
        if size > limit:
            raise ValueTooLarge(size, limit, what)
        return EncodedValue(bytes(value), raw=True)
    if not tags:
        return EncodedValue(encode_json(value, limit, what))
    return EncodedValue(typed.encode(value, limit, what, buffers), buffers=buffers)


def encode_json(value: Any, limit: int, what: str = "result") -> bytes:
    """Encode any value in its JSON form. Raises ValueTooLarge and LossyResult.

    >>> encode_json({"when": date(2026, 1, 2), "odd": [float("nan"), object()]}, 1000)
    b'{"when":"2026-01-02","odd":[{"$float":"nan"},{"$unserializable":"builtins.object"}]}'
    """
    typed.check_room(value, limit, what)
    data = _encode_fast(value)
    if data is None or data.find(b'{"$') >= 0 or too_deep(data) or (_ODD_KEY.search(data) and _repeats_key(data)):
        # Rare: NaN, a cycle, keys that are no text or have the same text, a tag, too deep. Convert it piece by piece.
        try:
            data = typed.to_bytes(_ENCODER.encode(PlainConverter(limit, what).plain(value)))
        except NotCarried as problem:
            raise problem.named(what) from None
    if data.startswith(typed.WRAPPER):
        data = b"{ " + data[1:]  # a dict of the user with this key; to the client it must not look like tags
    if len(data) > limit:
        raise ValueTooLarge(len(data), limit, what)
    return data


def _encode_fast(value: Any) -> bytes | None:
    try:
        return typed.to_bytes(json_text.encode(value, _ENCODER.encode))
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


def convert(value: Any) -> Any:
    """Convert an object one step towards types that JSON has; the marker if there is no such step."""
    try:
        if elements := tables.count(value):
            return _too_many(value, elements) if elements > MAX_ELEMENTS else tables.plain(value)
        if arrays.has_form(value):
            elements = count_elements(value)
            return _too_many(value, elements) if elements > MAX_ELEMENTS else arrays.plain(value)
        for kinds, step in STEPS:
            if isinstance(value, kinds):
                return step(value)
        if not isinstance(value, type):
            return _by_method(value)
    except NotCarried:
        raise
    except Exception as error:  # the object's own code failed: the marker has the error, the rest of the result is kept
        return marker(value, f"{type(error).__name__} while it was converted")
    return marker(value)


def _by_method(value: Any) -> Any:
    """Convert by the fields or a method of the object: a dataclass, pydantic, msgspec, attrs, torch."""
    if any(callable(getattr(value, name, None)) for name in ("tolist", "to_dict")):
        elements = count_elements(value)
        if elements > MAX_ELEMENTS:
            return _too_many(value, elements)
    found = kinds.as_data(value)
    if found is not None:
        return found
    return value.isoformat() if callable(getattr(value, "isoformat", None)) else marker(value)


def _too_many(value: Any, elements: int) -> Tag:
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
    ((bytes, bytearray, memoryview), lambda value: Tag({"$bytes": base64.b64encode(value).decode("ascii")})),
    (Enum, lambda value: value.value),
    ((datetime, date, time), arrays.moment),
    (timedelta, lambda value: value.total_seconds()),
    (complex, lambda value: Tag({"$complex": [value.real, value.imag]})),
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
            return value if math.isfinite(value) else Tag({"$float": float.__repr__(value)})
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
        if type(value) is Tag:
            return {key: self._parts(item, depth) if type(item) is list else item for key, item in value.items()}
        if isinstance(value, dict):
            return self._object(value, depth)
        if isinstance(value, list | tuple):
            return self._parts(value, depth)
        # A conversion counts as depth too: it may return an object of the same type, without end.
        return self.plain(convert(value), depth)

    def _parts(self, values: Any, depth: int) -> list[Any]:
        made: list[Any] = []
        try:
            for item in values:
                made.append(self.plain(item, depth))
        except NotCarried as problem:
            raise problem.below(f"[{len(made)}]") from None
        return made

    def _object(self, value: dict[Any, Any], depth: int) -> Any:
        plain: dict[str, Any] = {}
        keys: dict[str, Any] = {}
        for key, item in value.items():
            name = key_text(key)
            if name is None:
                return marker(value, f"a key of type {type_name(type(key))}")
            if name in plain:
                raise LossyResult(
                    f"has two keys that JSON cannot tell apart: {keys[name]!r} and {key!r} are both "
                    f"{json.dumps(name)} there; return a list of pairs"
                )
            keys[name] = key
            try:
                plain[name] = self.plain(item, depth)
            except NotCarried as problem:
                raise problem.below(f".{name}" if name.isidentifier() else f"[{key!r}]") from None
        if len(plain) == 1 and next(iter(plain))[:1] == "$":  # it looks like a tag
            return {"$dict": [list(pair) for pair in plain.items()]}
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

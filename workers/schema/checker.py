"""One annotation, compiled once: the check of a JSON value, and the JSON Schema.

     annotation ──compile──▶ Checker(words, schema, check, passes)

A check returns the value that the command gets (a datetime for a string, ...), or raises Mismatch. `passes` holds the
exact types that need no check, so that a long list is checked by one pass in C.
"""

from __future__ import annotations

import base64
import binascii
import pathlib
import re
import sys
import types
import typing
from collections import abc, deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from itertools import pairwise
from typing import Any
from uuid import UUID

Schema = dict[str, Any]

NOTHING = type(None)


class Mismatch(Exception):
    """A value does not fit its annotation; `path` leads to the part that does not."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.path = path

    def below(self, step: str) -> Mismatch:
        return Mismatch(self.message, step + self.path)


class Unsupported(Exception):
    """The annotation names a type that cannot be made from JSON."""


@dataclass(frozen=True, slots=True)
class Checker:
    """The compiled annotation. `words` describe what it accepts, for messages."""

    words: str  # "a number"
    schema: Schema
    check: Callable[[Any], Any]
    passes: frozenset[type] = frozenset()


def describe(value: object) -> str:
    """The type of a JSON value, in words.

    >>> describe([]), describe(None), describe(True)
    ('an array', 'null', 'true')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    words = {str: "a string", int: "an integer", float: "a number", list: "an array", dict: "an object", bytes: "bytes"}
    return words.get(type(value), type(value).__name__)


def refuse(words: str, value: object) -> Mismatch:
    return Mismatch(f"must be {words}, not {describe(value)}")


def number_of(value: Any) -> Any:
    """A NumPy scalar as Python's value; other values unchanged. It is asked only where a value does not fit."""
    generic = getattr(sys.modules.get("numpy"), "generic", None)
    return value.item() if generic is not None and isinstance(value, generic) else value


def listed(value: Any) -> Any:
    """What fits an array as a list: a tuple, a set, a deque, a NumPy array; other values unchanged."""
    if isinstance(value, tuple | set | frozenset | deque | range):
        return list(value)
    array = getattr(sys.modules.get("numpy"), "ndarray", None)
    return value.tolist() if array is not None and isinstance(value, array) and value.ndim else value


def exactly(kind: type, words: str, schema: Schema) -> Checker:
    def check(value: Any) -> Any:
        if type(value) is kind or type(value := number_of(value)) is kind:
            return value
        raise refuse(words, value)

    return Checker(words, schema, check, frozenset({kind}))


def _number(value: Any) -> float:
    if type(value) is float:
        return value
    value = number_of(value)
    if type(value) is float:
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise Mismatch("is too large for a float") from None
    raise refuse("a number", value)


def _bytes(value: Any) -> bytes:
    return read_base64("bytes or base64 text", value)


def read_base64(words: str, value: Any) -> bytes:
    """Bytes, from text in base64 where it is text. Raises Mismatch with `words`."""
    if type(value) is bytes:
        return value
    if type(value) is dict and value.keys() == {"$bytes"}:  # in the args of a pool
        value = value["$bytes"]
    if type(value) is not str:
        raise refuse(words, value)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Mismatch("must be base64") from None


ANYTHING = Checker("anything", {}, lambda value: value)
NUMBER = Checker("a number", {"type": "number"}, _number, frozenset({float}))
STRING = exactly(str, "a string", {"type": "string"})
BYTES = Checker("bytes or base64 text", {"type": "string", "contentEncoding": "base64"}, _bytes, frozenset({bytes}))


def _text(words: str, schema: Schema, read: Callable[[str], Any], kind: type, but_not: Any = ()) -> Checker:
    """Text that `read` converts, or the value itself. `but_not`: a subclass that is another type."""

    def check(value: Any) -> Any:
        if isinstance(value, kind) and not isinstance(value, but_not):
            return value
        if type(value) is not str:
            raise refuse(words, value)
        try:
            return read(value)
        except (ValueError, InvalidOperation):
            raise Mismatch(f"must be {words}, not {value[:80]!r}") from None

    return Checker(words, {"type": "string", **schema}, check)


def _decimal(value: Any) -> Decimal:
    if type(value) is Decimal:
        return value
    if type(value := number_of(value)) not in (str, int, float):
        raise refuse("a decimal number", value)
    try:
        return Decimal(str(value))
    except InvalidOperation:
        raise Mismatch(f"must be a decimal number, not {str(value)[:80]!r}") from None


def _seconds(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(seconds=_number(value))
    except OverflowError:
        raise Mismatch("is too large for a duration in seconds") from None


SIMPLE: dict[Any, Checker] = {
    Any: ANYTHING,
    object: ANYTHING,
    bool: exactly(bool, "true or false", {"type": "boolean"}),
    int: exactly(int, "an integer", {"type": "integer"}),
    float: NUMBER,
    str: STRING,
    typing.LiteralString: STRING,
    bytes: BYTES,
    bytearray: Checker(BYTES.words, BYTES.schema, lambda value: bytearray(_bytes(value))),
    memoryview: Checker(BYTES.words, BYTES.schema, lambda value: memoryview(_bytes(value))),
    None: exactly(NOTHING, "null", {"type": "null"}),
    NOTHING: exactly(NOTHING, "null", {"type": "null"}),
    datetime: _text("a date and time (ISO 8601)", {"format": "date-time"}, datetime.fromisoformat, datetime),
    date: _text("a date (YYYY-MM-DD)", {"format": "date"}, date.fromisoformat, date, datetime),
    time: _text("a time of day (ISO 8601)", {"format": "time"}, time.fromisoformat, time),
    timedelta: Checker("a number of seconds", {"type": "number"}, _seconds),
    complex: Checker("a complex number", {}, lambda value: _complex(value)),
    range: Checker("a range of integers", {"type": "array", "items": {"type": "integer"}}, lambda value: _range(value)),
    UUID: _text("a UUID", {"format": "uuid"}, UUID, UUID),
    Decimal: Checker("a decimal number", {"type": ["string", "number"]}, _decimal),
    pathlib.Path: _text("a path", {}, pathlib.Path, pathlib.Path),
    pathlib.PurePath: _text("a path", {}, pathlib.PurePath, pathlib.PurePath),
    re.Pattern: _text("a regular expression", {"format": "regex"}, lambda text: _pattern(text), re.Pattern),
}


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise Mismatch(f"is not a regular expression: {error}") from None


def _complex(value: Any) -> complex:
    value = number_of(value)
    if type(value) in (int, float, complex):
        return complex(value)
    raise refuse("a complex number", value)


def _range(value: Any) -> range:
    """A range, or the array of its numbers, which is its JSON form."""
    if type(value) is range:
        return value
    if type(value) is not list or any(type(one) is not int for one in value):
        raise refuse("a range of integers", value)
    step = value[1] - value[0] if len(value) > 1 else 1
    # Not by a comparison with the list of the range: [0, 1, 10**12] would make one of a trillion numbers.
    if not step or any(after - before != step for before, after in pairwise(value)):
        raise Mismatch("must be a range: integers with the same distance")
    return range(value[0], value[-1] + step, step) if value else range(0)


def many(item: Checker, make: Callable[[list[Any]], Any] | None) -> Checker:
    """A JSON array of items of one type; `make` converts the checked list to the annotated collection."""
    passes, check_item = item.passes, item.check

    def check(value: Any) -> Any:
        if type(value) is not list and type(value := listed(value)) is not list:
            raise refuse("an array", value)
        # One pass in C if all items have the right type already.
        if check_item is not ANYTHING.check and not passes.issuperset(map(type, value)):
            value = _each(check_item, value)
        return value if make is None else make(value)

    schema: Schema = {"type": "array"}
    if item.schema:
        schema["items"] = item.schema
    return Checker("an array", schema, check)


def _each(check: Callable[[Any], Any], values: list[Any]) -> list[Any]:
    try:
        return [check(value) for value in values]
    except Mismatch:
        pass
    for index, value in enumerate(values):  # a second pass, only to find the index
        try:
            check(value)
        except Mismatch as mismatch:
            raise mismatch.below(f"[{index}]") from None
    raise AssertionError("a check must give the same answer twice")


def unordered(item: Checker, kind: type) -> Checker:
    def make(values: list[Any]) -> Any:
        try:
            return kind(values)
        except TypeError:
            raise Mismatch("holds an array or object, which a set cannot hold") from None

    return many(item, make)


def fixed(items: tuple[Checker, ...]) -> Checker:
    """A JSON array with one checker for each position."""
    words = f"an array of {len(items)}"

    def check(value: Any) -> tuple[Any, ...]:
        if type(value) is not list and type(value := listed(value)) is not list:
            raise refuse(words, value)
        if len(value) != len(items):
            raise Mismatch(f"must be {words} items, not {len(value)}")
        return tuple(at(f"[{index}]", items[index], item) for index, item in enumerate(value))

    size = len(items)
    schema = {"type": "array", "prefixItems": [item.schema for item in items], "minItems": size, "maxItems": size}
    return Checker(words, schema, check)


def at(step: str, checker: Checker, value: Any) -> Any:
    """Check a part of a value, and add its place to the mismatch."""
    try:
        return checker.check(value)
    except Mismatch as mismatch:
        raise mismatch.below(step) from None


def mapping(item: Checker) -> Checker:
    def check(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise refuse("an object", value)
        if item is ANYTHING:
            return value
        return {key: at(f".{key}", item, part) for key, part in value.items()}

    schema: Schema = {"type": "object"}
    if item.schema:
        schema["additionalProperties"] = item.schema
    return Checker("an object", schema, check)


def literal(values: tuple[Any, ...], convert: Mapping[Any, Any] | None = None) -> Checker:
    """One of some JSON values; `convert` maps each to what the command gets."""
    # The type is part of the key: 1 == True, but they are different literals.
    table = {(type(value), value): convert[value] if convert else value for value in values}
    words = "one of " + ", ".join(map(repr, values))

    def check(value: Any) -> Any:
        key = (type(value), value)
        if isinstance(value, Hashable) and key in table:
            return table[key]
        shown = repr(value)[:80] if isinstance(value, str | int | float) else describe(value)
        raise Mismatch(f"must be {words}, not {shown}")

    return Checker(words, {"enum": list(values)}, check)


def enumeration(kind: type[Enum]) -> Checker:
    """An Enum, by its values if JSON can hold them all, otherwise by its names."""
    members = list(kind)
    if all(type(member.value) in (str, int, float, bool, NOTHING) for member in members):
        # Not a dict by value: 1 and True would be one key.
        table = literal(tuple(member.value for member in members))
        return Checker(table.words, table.schema, lambda value: kind(table.check(value)))
    names = literal(tuple(kind.__members__), dict(kind.__members__))
    values = {(type(member.value), key): member for member in members if (key := _key(member.value)) is not None}

    def check(value: Any) -> Any:
        # A Python client sends a member as its value.
        member = values.get((type(value), _key(value)))
        return names.check(value) if member is None else member

    return Checker(names.words, names.schema, check)


def _key(value: Any) -> Any:
    """The value, or None if it cannot be looked up in a dict."""
    try:
        hash(value)
    except TypeError:
        return None
    return value


def union(members: tuple[Checker, ...]) -> Checker:
    words = " or ".join(dict.fromkeys(member.words for member in members))
    by_type = {kind: member for member in reversed(members) for kind in member.passes}

    def check(value: Any) -> Any:
        exact = by_type.get(type(value))
        if exact is not None:
            return exact.check(value)
        nested = None
        for member in members:
            try:
                return member.check(value)
            except Mismatch as mismatch:
                nested = nested or (mismatch if mismatch.path else None)
        # A mismatch inside one member is more precise than "none of these".
        raise nested or refuse(words, value)

    passes = frozenset().union(*(member.passes for member in members))
    return Checker(words, {"anyOf": [member.schema for member in members]}, check, passes)


COLLECTIONS: dict[Any, Callable[[Checker], Checker]] = {
    list: lambda item: many(item, None),
    set: lambda item: unordered(item, set),
    frozenset: lambda item: unordered(item, frozenset),
    deque: lambda item: many(item, deque),
    abc.Sequence: lambda item: many(item, None),
    abc.MutableSequence: lambda item: many(item, None),
    abc.Iterable: lambda item: many(item, None),
    abc.Collection: lambda item: many(item, None),
    abc.Set: lambda item: unordered(item, set),
    abc.MutableSet: lambda item: unordered(item, set),
}

MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)

UNIONS = (typing.Union, types.UnionType)

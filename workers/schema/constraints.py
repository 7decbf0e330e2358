"""The constraints of an Annotated: of annotated_types, of pydantic's Field and of msgspec's Meta.

     Annotated[int, Ge(1)]   Annotated[str, Field(max_length=80)]   Annotated[list[float], Len(1, 64)]

Each is checked and is in the JSON Schema, or the annotation is refused when the adapter loads. Other metadata, such as
a text, is for readers. Where a constraint of pydantic has no counterpart here, pydantic checks the whole annotation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from snakepit.workers.schema.checker import Checker, Mismatch, Unsupported

OWNERS = ("annotated_types", "pydantic", "msgspec")
DESCRIPTIVE = ("Doc", "DocInfo", "WithJsonSchema", "SkipValidation", "Discriminator", "Examples")
MSGSPEC = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")


@dataclass(frozen=True, slots=True)
class Constraint:
    """One condition; `words` say what the value must be."""

    words: str
    holds: Callable[[Any], bool]
    schema: dict[str, Any]


class Foreign(Exception):
    """The constraint has no counterpart here."""


def constrained(base: Checker, metadata: Iterable[Any], shown: str) -> Checker:
    """A checker with the constraints of the metadata. Raises Foreign for one that only pydantic can check."""
    found = [constraint for item in metadata for constraint in of(item, base, shown)]
    if not found:
        return base

    def check(value: Any) -> Any:
        made = base.check(value)
        for constraint in found:
            try:
                holds = constraint.holds(made)
            except TypeError:
                raise Mismatch(f"cannot be compared: it must be {constraint.words}") from None
            if not holds:
                raise Mismatch(f"must be {constraint.words}{_but(made)}")
        return made

    schema = dict(base.schema)
    for constraint in found:
        schema |= constraint.schema
    return Checker(" ".join([base.words, *(constraint.words for constraint in found)]), schema, check)


def _but(value: Any) -> str:
    if isinstance(value, int | float):
        return f", not {value!r}"[:80]
    return f", not {len(value)}" if hasattr(value, "__len__") and not isinstance(value, str) else ""


def of(item: Any, base: Checker, shown: str) -> Iterator[Constraint]:
    """The constraints of one piece of metadata."""
    owner, name = type(item).__module__.partition(".")[0], type(item).__name__
    if owner not in OWNERS or name in DESCRIPTIVE:
        return
    if owner == "msgspec":
        facts = {keyword: getattr(item, keyword, None) for keyword in MSGSPEC}
        yield from (_made(keyword, limit, base, shown) for keyword, limit in facts.items() if limit is not None)
    elif name == "Predicate":
        yield _predicate(item.func)
    elif owner == "pydantic" and name != "FieldInfo":
        yield from _of_pydantic(item, base, shown)
    elif name == "FieldInfo" or hasattr(item, "__iter__"):  # Field, Interval, Len: groups of constraints
        for part in item.metadata if name == "FieldInfo" else item:
            yield from of(part, base, shown)
    else:
        yield _made(_keyword(name), getattr(item, _keyword(name), None), base, shown)


def _keyword(name: str) -> str:
    """The name of a class as its field: MinLen has min_length, MultipleOf has multiple_of."""
    short = re.sub("(?<!^)(?=[A-Z])", "_", name).lower()
    return {"min_len": "min_length", "max_len": "max_length"}.get(short, short)


def _of_pydantic(item: Any, base: Checker, shown: str) -> Iterator[Constraint]:
    facts = {key: value for key, value in vars(item).items() if value is not None} if hasattr(item, "__dict__") else {}
    if not facts or not facts.keys() <= set(MSGSPEC):
        raise Foreign
    for keyword, limit in facts.items():
        yield _made(keyword, limit, base, shown)


def _predicate(function: Callable[[Any], Any]) -> Constraint:
    name = getattr(function, "__name__", repr(function))
    return Constraint(f"a value for which {name} is true", lambda value: bool(function(value)), {})


def _made(keyword: str, limit: Any, base: Checker, shown: str) -> Constraint:
    number = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
    if keyword in number:
        schema = {number[keyword]: limit} if isinstance(limit, int | float) else {}
        return Constraint(*_comparison(keyword, limit), schema)
    if keyword == "multiple_of":
        return Constraint(f"a multiple of {limit}", lambda value: not value % limit, {"multipleOf": limit})
    if keyword in ("min_length", "max_length"):
        return _length(keyword, limit, base)
    if keyword == "pattern":
        pattern = re.compile(limit)
        return Constraint(
            f"text with the pattern {limit}", lambda value: bool(pattern.search(value)), {"pattern": limit}
        )
    raise Unsupported(f"{shown}: the constraint {keyword!r} cannot be checked; remove it, and check it in the command")


def _comparison(keyword: str, limit: Any) -> tuple[str, Callable[[Any], bool]]:
    return {
        "gt": (f"greater than {limit}", lambda value: value > limit),
        "ge": (f"at least {limit}", lambda value: value >= limit),
        "lt": (f"less than {limit}", lambda value: value < limit),
        "le": (f"at most {limit}", lambda value: value <= limit),
    }[keyword]


def _length(keyword: str, limit: int, base: Checker) -> Constraint:
    kind, encoded = base.schema.get("type"), "contentEncoding" in base.schema
    part = {"array": "Items", "object": "Properties", "string": "Length"}.get(kind if isinstance(kind, str) else "")
    words, unit = ("at least", "min") if keyword == "min_length" else ("at most", "max")
    schema = {f"{unit}{part}": limit} if part and not encoded else {}

    def holds(value: Any) -> bool:
        return len(value) >= limit if unit == "min" else len(value) <= limit

    return Constraint(f"{words} {limit} long", holds, schema)

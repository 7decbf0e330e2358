"""Compiles a type annotation to its Checker; named types (dataclasses, TypedDicts) go to the schema's `$defs`."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from snakepit.workers.schema import checker, constraints, library_types
from snakepit.workers.schema.checker import Checker, Mismatch, Schema, Unsupported

LONGEST_WORD = 100  # characters that are compared: a caller may send megabytes


def nearest(word: str, words: typing.Iterable[str]) -> str:
    """Suggest the nearest of some words, as text to append to a message.

    >>> nearest("pixls", ["pixels", "size"])
    " (did you mean 'pixels'?)"
    """
    match = difflib.get_close_matches(word[:LONGEST_WORD], list(words), n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""


class Compiler:
    """Compiles the annotations of one signature."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self._named: dict[Any, Checker] = {}

    def compile(self, annotation: Any) -> Checker:
        try:
            simple = checker.SIMPLE.get(annotation)
        except TypeError:  # unhashable: an Annotated with a list in its metadata, a Literal of lists
            simple = None
        if simple is not None:
            return simple
        origin = typing.get_origin(annotation)
        if origin is not None:
            return self._generic(annotation, origin, typing.get_args(annotation))
        return self._plain(annotation)

    def _plain(self, annotation: Any) -> Checker:
        """A type without arguments: a bare collection, an alias of another type, a class."""
        if annotation in checker.COLLECTIONS:
            return checker.COLLECTIONS[annotation](checker.ANYTHING)
        if annotation is tuple:
            return checker.many(checker.ANYTHING, tuple)
        if annotation in checker.MAPPINGS:
            return checker.mapping(checker.ANYTHING)
        if isinstance(annotation, typing.NewType):
            return self.compile(annotation.__supertype__)
        if isinstance(annotation, typing.TypeVar):
            return self.compile(annotation.__bound__ or Any)
        if type(annotation).__name__ == "TypeAliasType":  # `type X = ...`, from 3.12
            return self.compile(annotation.__value__)
        return self._class(annotation)

    def _class(self, annotation: Any) -> Checker:
        found = library_types.checker_of(annotation, self.definitions)
        if found is not None:
            return found
        if typing.is_typeddict(annotation):
            return self._structure(annotation, typed_dict_parts)
        if isinstance(annotation, type) and issubclass(annotation, Enum):
            return checker.enumeration(annotation)
        if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
            return self._structure(annotation, dataclass_parts)
        raise Unsupported(f"{shown(annotation)} cannot be made from JSON; use a type that JSON has, or Any")

    def _generic(self, annotation: Any, origin: Any, args: tuple[Any, ...]) -> Checker:
        if origin in checker.UNIONS:
            return checker.union(tuple(self.compile(arg) for arg in args))
        if origin in (typing.Annotated, typing.Required, typing.NotRequired, typing.Final):
            return self._annotated(annotation, args) if origin is typing.Annotated else self.compile(args[0])
        if origin is typing.Literal:
            return checker.literal(args)
        if origin is tuple:
            return self._tuple(args)
        if origin in checker.COLLECTIONS:
            return checker.COLLECTIONS[origin](self.compile(args[0]))
        if origin in checker.MAPPINGS:
            if self.compile(args[0]) is not checker.STRING:
                raise Unsupported(f"{shown(annotation)}: JSON's keys are strings; use dict[str, ...]")
            return checker.mapping(self.compile(args[1]))
        return self._generic_class(annotation, origin, args)

    def _generic_class(self, annotation: Any, origin: Any, args: tuple[Any, ...]) -> Checker:
        if origin is getattr(sys.modules.get("numpy"), "ndarray", None):
            return library_types.array_checker(_dtype_of(args))
        if isinstance(origin, type) and (dataclasses.is_dataclass(origin) or typing.is_typeddict(origin)):
            return self._plain(origin)
        raise Unsupported(f"{shown(annotation)} cannot be made from JSON; use a type that JSON has, or Any")

    def _annotated(self, annotation: Any, args: tuple[Any, ...]) -> Checker:
        try:
            return constraints.constrained(self.compile(args[0]), args[1:], shown(annotation))
        except constraints.Foreign:
            return library_types.adapted(annotation, self.definitions)

    def _tuple(self, args: tuple[Any, ...]) -> Checker:
        if len(args) == 2 and args[1] is Ellipsis:
            return checker.many(self.compile(args[0]), tuple)
        return checker.fixed(tuple(self.compile(arg) for arg in args))

    def _structure(self, kind: type, parts: Callable[[type], tuple[dict[str, Any], set[str], Make]]) -> Checker:
        known = self._named.get(kind)
        if known is not None:
            return known
        name = kind.__name__
        while name in self.definitions:  # two modules may use one name
            name += "_"
        fields: dict[str, Checker] = {}
        hints, required, make = parts(kind)
        check = structure_check(kind.__name__, fields, required, make)
        # Registered before its fields are compiled, so that a type may contain itself.
        self._named[kind] = Checker("an object", {"$ref": f"#/$defs/{name}"}, check)
        self.definitions[name] = {}
        fields.update({field: self.compile(hint) for field, hint in hints.items()})
        self.definitions[name] = {
            "type": "object",
            "properties": {field: part.schema for field, part in fields.items()},
            "required": sorted(required),
            "additionalProperties": False,
        }
        return self._named[kind]


Make = Callable[[dict[str, Any]], Any]


def structure_check(title: str, fields: Mapping[str, Checker], required: set[str], make: Make) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not dict:
            raise checker.refuse(f"an object ({title})", value)
        for name in value:
            if name not in fields:
                raise Mismatch(f"is unknown to {title}{nearest(name, fields)}", f".{name}")
        missing = sorted(required - value.keys())
        if missing:
            raise Mismatch("is missing", f".{missing[0]}")
        return make({name: checker.at(f".{name}", fields[name], part) for name, part in value.items()})

    return check


def typed_dict_parts(kind: Any) -> tuple[dict[str, Any], set[str], Make]:
    hints = typing.get_type_hints(kind, include_extras=True)
    # __required_keys__ ignores NotRequired in a string, which every annotation is under `from __future__ import
    # annotations`.
    marks = {name: typing.get_origin(hint) for name, hint in hints.items()}
    required = {name for name in kind.__required_keys__ if marks[name] is not typing.NotRequired}
    required |= {name for name, mark in marks.items() if mark is typing.Required}
    return hints, required, lambda parts: parts


def dataclass_parts(kind: Any) -> tuple[dict[str, Any], set[str], Make]:
    hints = typing.get_type_hints(kind, include_extras=True)
    given = [field for field in dataclasses.fields(kind) if field.init]
    required = {
        field.name
        for field in given
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }

    def make(parts: dict[str, Any]) -> Any:
        try:
            return kind(**parts)
        except (TypeError, ValueError) as error:  # raised by its __post_init__
            raise Mismatch(f"is not a valid {kind.__name__}: {error}") from None

    return {field.name: hints[field.name] for field in given}, required, make


def _dtype_of(args: tuple[Any, ...]) -> Any:
    """The dtype of NDArray[...], which is ndarray[shape, dtype[scalar type]]; None for any."""
    scalars = typing.get_args(args[1]) if len(args) > 1 else ()
    numpy: Any = sys.modules["numpy"]
    kind = scalars[0] if scalars else None
    concrete = isinstance(kind, type) and issubclass(kind, numpy.generic) and kind.__name__ not in _ABSTRACT
    return numpy.dtype(kind) if concrete else None


_ABSTRACT = frozenset(
    ("generic", "number", "integer", "signedinteger", "unsignedinteger", "inexact", "floating", "complexfloating",
     "flexible", "character")
)  # fmt: skip


def shown(annotation: Any) -> str:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return f"{annotation.__module__}.{annotation.__qualname__}"
    return repr(annotation)

"""The JSON Schema of a command's result, from its return annotation, so that clients are generated with its type.

     -> list[Match] ──result_schema──▶ {"type": "array", "items": {"$ref": "#/$defs/Match"}, "$defs": {...}}

It describes the JSON form of a value (docs/reference/values.md), which is narrower than what an argument accepts: a
Decimal is text, a table one object. An annotation without such a form gives {}, which allows every value. A worker does
not check a result against it.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from collections import Counter, abc, deque
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from snakepit.workers.schema import result_forms
from snakepit.workers.schema.result_forms import BYTES, Schema, array, choice, either, tagged
from snakepit.workers.schema.signature import DIALECT, hints_of, resolved

ANYTHING: Schema = {}
STREAMS = (abc.Iterator, abc.Iterable, abc.Generator, abc.AsyncIterator, abc.AsyncIterable, abc.AsyncGenerator)


def result_schema(function: Callable[..., Any], *, streams: bool = False, batched: bool = False) -> Schema:
    """The schema of one result: of one chunk of a command that streams, of one call of a batch.

    >>> def words(text: str) -> list[str]: ...
    >>> result_schema(words)["items"]
    {'type': 'string'}
    >>> result_schema(words, batched=True)["type"]
    'string'
    """
    compiler = ResultCompiler()
    try:
        schema = compiler.schema(_result_hint(function, streams, batched))
    except Exception:  # an annotation is code of the adapter, and a result without a type is no reason to refuse it
        return {}
    if not schema:
        return {}
    definitions = {"$defs": compiler.definitions} if compiler.definitions else {}
    return {"$schema": DIALECT, **schema, **definitions}


def _result_hint(function: Callable[..., Any], streams: bool, batched: bool) -> Any:
    hint = hints_of(function).get("return", inspect.Parameter.empty)
    if hint is inspect.Parameter.empty:  # one name of the signature cannot be resolved: look at this one alone
        inner = inspect.unwrap(function)
        hint = resolved(return_annotation(inner), getattr(inner, "__globals__", {}))
    if not (streams or batched):
        return hint
    wanted = STREAMS if streams else (list, abc.Sequence)
    args = typing.get_args(hint) if typing.get_origin(hint) in wanted else ()
    return args[0] if args else Any


def return_annotation(function: Callable[..., Any]) -> Any:
    if sys.version_info >= (3, 14):
        import annotationlib

        found = inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF).return_annotation
    else:
        found = inspect.signature(function).return_annotation
    return Any if found is inspect.Parameter.empty else found


class ResultCompiler:
    """Compiles return annotations; named types go to `definitions`."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self._named: dict[Any, Schema] = {}
        self._bound: dict[Any, Any] = {}  # type variables of the generic class whose fields are compiled

    def schema(self, annotation: Any) -> Schema:
        try:
            simple = SIMPLE.get(annotation)
        except TypeError:  # unhashable: an Annotated with a list in its metadata
            simple = None
        if simple is not None:
            return dict(simple)
        origin = typing.get_origin(annotation)
        if origin is not None:
            return self._generic(annotation, origin, typing.get_args(annotation))
        return self._plain(annotation)

    def _plain(self, annotation: Any) -> Schema:
        if isinstance(annotation, typing.NewType):
            return self.schema(annotation.__supertype__)
        if isinstance(annotation, typing.TypeVar):
            return self.schema(self._bound.get(annotation, annotation.__bound__ or Any))
        if type(annotation).__name__ == "TypeAliasType":  # `type X = ...`, from 3.12
            return self.schema(annotation.__value__)
        return self._class(annotation) if isinstance(annotation, type) else {}

    def _class(self, kind: type) -> Schema:
        found = result_forms.of_library(kind)
        if found is not None:
            return found
        if issubclass(kind, Enum):
            return choice([member.value for member in kind])
        for parts in (_dataclass, _struct, _attrs, _typed_dict):
            named = parts(kind)
            if named is not None:
                return self._structure(kind, kind.__name__, *named)
        if hasattr(kind, "__pydantic_fields__"):
            return self._model(kind)
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            hints = typing.get_type_hints(kind, include_extras=True)
            return self._tuple(tuple(hints.get(name, Any) for name in kind._fields))
        # A subclass arrives as its base type.
        return next((dict(SIMPLE[base]) for base in kind.__mro__ if base in SIMPLE), {})

    def _generic(self, annotation: Any, origin: Any, args: tuple[Any, ...]) -> Schema:
        if origin in (typing.Union, types.UnionType):
            return either([self.schema(arg) for arg in args])
        if origin in (typing.Annotated, typing.Required, typing.NotRequired, typing.Final, _READ_ONLY):
            return {} if _converts(args[1:]) else self.schema(args[0])
        if origin is typing.Literal:
            return choice([arg.value if isinstance(arg, Enum) else arg for arg in args])
        if origin is tuple:
            return array(self.schema(args[0])) if args[1:] == (Ellipsis,) else self._tuple(args)
        if isinstance(origin, type):
            return self._generic_class(annotation, origin, args)
        return self.schema(annotation.__value__) if hasattr(annotation, "__value__") else {}

    def _generic_class(self, annotation: Any, origin: type, args: tuple[Any, ...]) -> Schema:
        if not args:  # typing.List
            return self.schema(origin)
        found = result_forms.of_array(origin, args)
        if found is not None:
            return found
        if dataclasses.is_dataclass(origin) or typing.is_typeddict(origin) or hasattr(origin, "__struct_fields__"):
            return self._bound_class(annotation, origin, args)
        if issubclass(origin, abc.Mapping):
            item = self.schema(args[1] if len(args) == 2 else int if origin is Counter else Any)
            return {"type": "object"} | ({"additionalProperties": item} if item else {})
        # A generator that the command returns is collected: its JSON form is an array.
        return array(self.schema(args[0])) if issubclass(origin, abc.Iterable | abc.AsyncIterable) else {}

    def _bound_class(self, annotation: Any, origin: Any, args: tuple[Any, ...]) -> Schema:
        """A generic class with its arguments, such as Page[Match]."""
        outer, names = self._bound, getattr(origin, "__parameters__", ())
        self._bound = outer | {name: outer.get(arg, arg) for name, arg in zip(names, args, strict=False)}
        try:
            for parts in (_dataclass, _struct, _typed_dict):
                named = parts(origin)
                if named is not None:
                    title = "_".join([origin.__name__, *(getattr(arg, "__name__", "") for arg in args)]).rstrip("_")
                    return self._structure((annotation, *self._bound.values()), title, *named)
            return {}
        finally:
            self._bound = outer

    def _tuple(self, args: tuple[Any, ...]) -> Schema:
        items = [self.schema(arg) for arg in args]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}

    def _structure(self, key: Any, title: str, hints: Mapping[str, Any], required: list[str]) -> Schema:
        if key in self._named:
            return dict(self._named[key])
        name = title
        while name in self.definitions:  # two modules may use one name
            name += "_"
        # Registered before its fields are compiled, so that a type may contain itself.
        self._named[key] = {"$ref": f"#/$defs/{name}"}
        self.definitions[name] = {}
        fields = {field: self.schema(hint) for field, hint in hints.items()}
        self.definitions[name] = {"type": "object", "properties": fields, "required": required}
        return dict(self._named[key])

    def _model(self, kind: Any) -> Schema:
        """A pydantic model, by the fields that `model_dump()` gives."""
        own = kind.__pydantic_decorators__
        if own.model_serializers or getattr(kind, "__pydantic_root_model__", False):
            return {} if own.model_serializers else self.schema(kind.model_fields["root"].annotation)
        by_alias = kind.model_config.get("serialize_by_alias", False)
        changed = {name for one in own.field_serializers.values() for name in one.info.fields}
        hints: dict[str, Any] = {}
        for name, field in kind.model_fields.items():
            if not field.exclude:
                free = name in changed or "*" in changed or _converts(field.metadata)
                hints[(by_alias and field.serialization_alias) or name] = Any if free else field.annotation
        for name, field in kind.model_computed_fields.items():
            hints[(by_alias and field.alias) or name] = field.return_type
        return self._structure(kind, kind.__name__, hints, list(hints))


def _converts(metadata: Any) -> bool:
    """Whether pydantic writes a field in another form than that of its type."""
    return any(type(one).__name__ in ("PlainSerializer", "WrapSerializer") for one in metadata)


Named = tuple[Mapping[str, Any], list[str]] | None


def _dataclass(kind: Any) -> Named:
    if not dataclasses.is_dataclass(kind):
        return None
    hints = typing.get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: hints[name] for name in names}, names


def _struct(kind: Any) -> Named:
    names = getattr(kind, "__struct_fields__", None)
    if names is None:
        return None
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: hints[name] for name in names}, list(names)


def _attrs(kind: Any) -> Named:
    fields = getattr(kind, "__attrs_attrs__", None)
    if fields is None:
        return None
    hints = typing.get_type_hints(kind, include_extras=True)
    names = [field.name for field in fields]
    return {name: hints.get(name, Any) for name in names}, names


def _typed_dict(kind: Any) -> Named:
    if not typing.is_typeddict(kind):
        return None
    hints = typing.get_type_hints(kind, include_extras=True)
    marks = {name: typing.get_origin(hint) for name, hint in hints.items()}
    # __required_keys__ ignores a mark in a string, as every annotation is under `from __future__ import annotations`.
    required = [name for name in hints if _is_required(marks[name], name in kind.__required_keys__)]
    return hints, required


def _is_required(mark: Any, otherwise: bool) -> bool:
    return otherwise if mark not in (typing.Required, typing.NotRequired) else mark is typing.Required


_READ_ONLY = getattr(typing, "ReadOnly", None)  # from 3.13
_TEXT: Schema = {"type": "string"}
_MOMENT: Schema = {"type": "string", "format": "date-time"}

SIMPLE: dict[Any, Schema] = {
    Any: ANYTHING,
    object: ANYTHING,
    None: {"type": "null"},
    type(None): {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    complex: tagged("$complex", array({"type": "number"})),
    str: _TEXT,
    typing.LiteralString: _TEXT,
    bytes: BYTES,
    bytearray: BYTES,
    memoryview: BYTES,
    datetime: _MOMENT,
    date: {"type": "string", "format": "date"},
    time: {"type": "string", "format": "time"},
    timedelta: {"type": "number", "description": "Seconds."},
    Decimal: _TEXT,
    UUID: {"type": "string", "format": "uuid"},
    PurePath: _TEXT,
    range: array({"type": "integer"}),
    list: {"type": "array"},
    tuple: {"type": "array"},
    set: {"type": "array"},
    frozenset: {"type": "array"},
    deque: {"type": "array"},
    abc.Sequence: {"type": "array"},
    abc.Set: {"type": "array"},
    dict: {"type": "object"},
    abc.Mapping: {"type": "object"},
}

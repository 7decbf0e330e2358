"""A command's signature: its JSON Schema, and the check of one call's arguments against it.

bytes ──decode──▶ dict ──Signature.check──▶ keyword arguments, or InvalidArguments with every problem named
"""

from __future__ import annotations

import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from snakepit.workers.adapter import InvalidAdapter
from snakepit.workers.buffers import ATTACHMENT, Incoming
from snakepit.workers.context import Context
from snakepit.workers.schema import json_text, typed
from snakepit.workers.schema.annotation import Compiler, nearest
from snakepit.workers.schema.checker import ANYTHING, Checker, Mismatch, Unsupported
from snakepit.workers.schema.json_text import MAX_DEPTH, NotFinite
from snakepit.workers.schema.not_carried import NotCarried

DIALECT = "https://json-schema.org/draft/2020-12/schema"
WHOLE = "$"  # the key of problems with the arguments as a whole


class InvalidArguments(Exception):
    """A call's arguments do not fit the command; `problems` maps each argument to what is wrong with it."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("; ".join(self.problems.values()))


@dataclass(frozen=True, slots=True)
class Signature:
    """A command's parameters, compiled."""

    checkers: Mapping[str, Checker]
    required: frozenset[str]
    schema: Mapping[str, Any]
    extra: Checker | None = None  # of **kwargs
    context: str = ""  # the parameter that gets the Context
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of a batch: of a call without the argument

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check and convert the arguments of one call; raises InvalidArguments.

        >>> def classify(pixels: list[float], top: int = 1): ...
        >>> signature_of(classify).check({"pixels": [1, 2.5]})
        {'pixels': [1.0, 2.5]}
        >>> signature_of(classify).check({"pixels": [1], "tpo": 3})
        Traceback (most recent call last):
            ...
        snakepit.workers.schema.signature.InvalidArguments: tpo is unknown (did you mean 'top'?)
        """
        taken: dict[str, Any] = {}
        problems: dict[str, str] = {}
        checkers = self.checkers
        for name, value in given.items():
            checker = checkers.get(name) or self._extra_checker(name, problems)
            if checker is None:
                continue
            if type(value) in checker.passes:
                taken[name] = value
                continue
            try:
                taken[name] = checker.check(value)
            except Mismatch as mismatch:
                problems[name] = f"{name}{mismatch.path} {mismatch.message}"
        if not self.required <= given.keys():
            problems.update({name: f"{name} is missing" for name in sorted(self.required - given.keys())})
        if problems:
            raise InvalidArguments(problems)
        return taken

    def _extra_checker(self, name: str, problems: dict[str, str]) -> Checker | None:
        if self.extra is not None and name != self.context:
            return self.extra
        problems[name] = f"{name} is unknown" + nearest(name, self.checkers)
        return None


def signature_of(function: Callable[..., Any], *, skip: int = 0, lenient: bool = False) -> Signature:
    """Compile a signature. Raises InvalidAdapter, which names the parameter that is not possible.

    `skip` leading parameters (self) are ignored. `lenient` allows *args, which then get no value.
    """
    return compile_signature(list(parameters_of(function).values())[skip:], hints_of(function), lenient=lenient)


def compile_signature(
    parameters: Sequence[inspect.Parameter], hints: Mapping[str, Any], *, lenient: bool = False
) -> Signature:
    compiler = Compiler()
    checkers: dict[str, Checker] = {}
    context, extra, properties = "", None, {}
    for parameter in parameters:
        name = parameter.name
        hint = hints.get(name, parameter.annotation)
        if is_context(name, hint):
            context = name
        elif parameter.kind is parameter.VAR_KEYWORD:
            extra = compiled(compiler, name, hint)
        elif parameter.kind is parameter.VAR_POSITIONAL and lenient:
            continue
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise InvalidAdapter(f"{name}: arguments come by name; remove *args and positional-only parameters")
        else:
            require_plain_default(name, parameter.default)
            checkers[name] = compiled(compiler, name, hint)
            properties[name] = property_schema(checkers[name], parameter.default)
    required = [p.name for p in parameters if p.name in checkers and p.default is p.empty]
    schema: dict[str, Any] = {
        "$schema": DIALECT,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": (extra.schema or True) if extra else False,
    }
    if compiler.definitions:
        schema["$defs"] = compiler.definitions
    return Signature(checkers, frozenset(required), schema, extra, context)


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    if sys.version_info >= (3, 14):
        # Annotations are evaluated on demand there. A name that only the type checker can resolve must not raise.
        import annotationlib

        return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF).parameters
    return inspect.signature(function).parameters


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The resolved annotations. One that cannot be resolved stays a string."""
    function = inspect.unwrap(function)
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # one unknown name fails all of them: resolve one by one
        names = getattr(function, "__globals__", {})
        hints = ((name, parameter.annotation) for name, parameter in parameters_of(function).items())
        return {name: resolved(hint, names) for name, hint in hints}


def resolved(hint: Any, names: dict[str, Any]) -> Any:
    single = types.SimpleNamespace(__annotations__={"hint": hint})
    try:
        return typing.get_type_hints(single, globalns=names, include_extras=True)["hint"]
    except Exception:
        return hint


def compiled(compiler: Compiler, name: str, hint: Any) -> Checker:
    if hint is inspect.Parameter.empty:
        return ANYTHING
    if isinstance(hint, str | typing.ForwardRef):
        raise InvalidAdapter(
            f"{name}: the annotation {hint!r} cannot be resolved where the command is defined; "
            "import its names at run time, not under TYPE_CHECKING"
        )
    try:
        return compiler.compile(hint)
    except Unsupported as error:
        raise InvalidAdapter(f"{name}: {error}") from None


def require_plain_default(name: str, default: Any) -> None:
    """Refuse `x: int = Field(ge=1)`: the command would get the Field as its value, and the bound would be lost."""
    if type(default).__module__.partition(".")[0] in ("pydantic", "msgspec") and type(default).__name__ == "FieldInfo":
        raise InvalidAdapter(f"{name}: write Annotated[..., Field(...)], not a Field as the default of a parameter")


def is_context(name: str, hint: Any) -> bool:
    """Whether it is the Context: annotated Context (or Context | None), or named ctx without another annotation."""
    if hint is Context or (name == "ctx" and (hint is inspect.Parameter.empty or hint is Any)):
        return True
    if isinstance(hint, str | typing.ForwardRef):  # unresolved
        return name == "ctx" or "Context" in str(hint)
    return Context in typing.get_args(hint)


def property_schema(checker: Checker, default: Any) -> dict[str, Any]:
    schema = dict(checker.schema)
    if default is not inspect.Parameter.empty and type(default) in (str, int, float, bool, type(None), list, dict):
        try:
            json.dumps(default, allow_nan=False)
        except (TypeError, ValueError):
            return schema
        schema["default"] = default
    return schema


_RESTORER = typed.Restorer(strict=False)  # a JSON caller may send a dict that looks like an unknown tag


def _restored(given: Mapping[str, Any], buffers: Incoming | None) -> dict[str, Any]:
    """The arguments with their tags restored; InvalidArguments names each that has none of the documented forms."""
    made: dict[str, Any] = {}
    problems: dict[str, str] = {}
    restorer = _RESTORER if buffers is None else typed.Restorer(strict=False, buffers=buffers)
    for name, tree in given.items():
        try:
            made[name] = restorer.value(tree)
        except NotCarried as problem:
            problems[name] = str(problem.named(name))
    if problems:
        raise InvalidArguments(problems)
    return made


def decode(
    text: bytes, attachments: Mapping[str, bytes] | None = None, buffers: Incoming | None = None
) -> dict[str, Any]:
    """Decode the arguments of a call: one JSON object, and the bytes and buffers that were sent beside it."""
    if attachments and ATTACHMENT in attachments:
        buffers = Incoming(inline=attachments[ATTACHMENT])
        attachments = {name: data for name, data in attachments.items() if name != ATTACHMENT}
    if json_text.too_deep(text):
        raise InvalidArguments({WHOLE: f"the arguments nest deeper than {MAX_DEPTH} levels"})
    try:
        given: Any = json_text.parse_strictly(text.decode("utf-8"))
    except NotFinite as error:
        raise InvalidArguments({WHOLE: f"the arguments are not JSON: {error}"}) from None
    except ValueError as error:
        raise InvalidArguments({WHOLE: f"the arguments are not JSON in UTF-8: {error}"}) from None
    if type(given) is not dict:
        raise InvalidArguments({WHOLE: "the arguments must be one JSON object, keyed by argument name"})
    given.pop(typed.NAME, None)
    found: dict[str, Any] = _restored(given, buffers) if json_text.has_tags(text) else given
    if attachments:
        twice = sorted(found.keys() & attachments.keys())
        if twice:
            raise InvalidArguments({name: f"{name} is given twice: in the JSON and as an attachment" for name in twice})
        found.update(attachments)
    return found

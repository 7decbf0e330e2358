"""The signature of a command that runs calls in batches: each parameter is a list with one item for each call.

    def classify(self, pixels: list[list[float]], top: Sequence[int] = (1,)) -> list[int]

A caller passes one call's arguments, `pixels: list[float]` and `top: int`, and receives one `int`. The default of a
parameter is a sequence of one item, that of a call without the argument.
"""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from snakepit.workers.adapter import InvalidAdapter
from snakepit.workers.context import Context
from snakepit.workers.schema.signature import Signature, compile_signature, hints_of, is_context, parameters_of

COLUMNS = (list, collections.abc.Sequence)
ONE_RESULT = (str, bytes, bytearray, int, float, bool, complex, type(None), dict, collections.abc.Mapping)


def batch_signature_of(function: Callable[..., Any], skip: int) -> Signature:
    """Compile the signature of one call. Raises InvalidAdapter, which names what does not fit a batch.

    >>> def length(text: list[str], limit: list[int] = [80]) -> list[int]: ...
    >>> batch_signature_of(length, 0).check({"text": "abc"})
    {'text': 'abc'}
    >>> def wrong(text: str) -> list[int]: ...
    >>> batch_signature_of(wrong, 0)
    Traceback (most recent call last):
        ...
    snakepit.workers.adapter.InvalidAdapter: text: a command with batch= gets a list with one item for each call; \
annotate it list[T], where T is the type of one call's argument
    """
    inner = inspect.unwrap(function)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise InvalidAdapter("a command with batch= returns a list and cannot be a generator: remove batch=, or yield")
    parameters, hints = list(parameters_of(function).values())[skip:], hints_of(function)
    _require_list(hints.get("return", Any))
    single: dict[str, Any] = {}
    changed = []
    for parameter in parameters:
        name = parameter.name
        hint = hints.get(name, parameter.annotation)
        if is_context(name, hint):
            _require_contexts(name, hint)
            changed.append(parameter)
            single[name] = Context
            continue
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise InvalidAdapter(f"{name}: a command with batch= names each of its parameters")
        single[name] = _item_of(name, hint)
        changed.append(parameter.replace(default=_default_of(name, parameter.default), annotation=single[name]))
    if not single.keys() - {one.name for one in changed if single[one.name] is Context}:
        raise InvalidAdapter("a command with batch= needs a parameter: its length is the number of calls")
    defaults = {one.name: one.default for one in changed if one.default is not one.empty}
    return replace(compile_signature(changed, single), defaults=defaults)


def _item_of(name: str, hint: Any) -> Any:
    if hint is inspect.Parameter.empty or hint is Any or isinstance(hint, str | typing.ForwardRef):
        return hint  # what cannot be resolved is refused as in any other command
    if hint in COLUMNS:
        return Any
    if typing.get_origin(hint) not in COLUMNS:
        raise InvalidAdapter(
            f"{name}: a command with batch= gets a list with one item for each call; "
            "annotate it list[T], where T is the type of one call's argument"
        )
    return typing.get_args(hint)[0]


def _default_of(name: str, default: Any) -> Any:
    if default is inspect.Parameter.empty:
        return default
    if not isinstance(default, list | tuple) or len(default) != 1:
        raise InvalidAdapter(
            f"{name}: its default in a command with batch= is a sequence of one item, that of a call without the "
            f"argument: write Sequence[T] = ({default!r},)"
        )
    return default[0]


def _require_contexts(name: str, hint: Any) -> None:
    if hint in (inspect.Parameter.empty, Any) or typing.get_origin(hint) in COLUMNS:
        return
    raise InvalidAdapter(f"{name}: each call of a batch has a context of its own; annotate it list[Context]")


def _require_list(hint: Any) -> None:
    origin = typing.get_origin(hint) or hint
    if hint is None or (isinstance(origin, type) and issubclass(origin, ONE_RESULT)):
        raise InvalidAdapter(
            "a command with batch= returns a list with one result for each call; annotate it -> list[R]"
        )

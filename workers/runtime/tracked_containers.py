"""Dicts, lists and sets that tell of each write before it happens: subclasses of the built-in kinds.

>>> told = []
>>> items = shadow_of([1, 2], lambda: told.append("write"))
>>> items.append(3); items, isinstance(items, list), told
([1, 2, 3], True, ['write'])

A copy of one (copy.copy, pickling, `.copy()`) is an ordinary value and tells nothing.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

Tell = Callable[[], None]

TELL = "_snakepit_tell"
MAPPING = ("__setitem__", "__delitem__", "clear", "pop", "popitem", "setdefault", "update", "__ior__")
SEQUENCE = ("__setitem__", "__delitem__", "__iadd__", "__imul__", "append", "extend", "insert", "pop", "remove",
            "clear", "reverse")  # fmt: skip
WRITES: dict[type, tuple[str, ...]] = {
    dict: MAPPING,
    OrderedDict: (*MAPPING, "move_to_end"),
    defaultdict: (*MAPPING, "__missing__"),
    Counter: (*MAPPING, "subtract", "__iadd__", "__isub__", "__iand__"),
    list: (*SEQUENCE, "sort"),
    deque: (*SEQUENCE, "appendleft", "extendleft", "popleft", "rotate"),
    set: ("add", "discard", "remove", "pop", "clear", "update", "intersection_update", "difference_update",
          "symmetric_difference_update", "__ior__", "__iand__", "__isub__", "__ixor__"),
}  # fmt: skip


def shadow_of(value: Any, tell: Tell) -> Any:
    """The same content as `value`, which must be exactly one of the kinds in WRITES, as a value that tells."""
    kind = type(value)
    shadow: Any = SHADOWS[kind]
    if kind is defaultdict:
        made = shadow(value.default_factory, value)
    elif kind is deque:
        made = shadow(value, value.maxlen)
    elif kind is Counter:
        made = shadow()
        dict.update(made, value)  # Counter's own update would add to counts, not set them
    else:
        made = shadow(value)
    setattr(made, TELL, tell)  # last: what filled it was no write
    return made


def plain_of(shadow: Any) -> Any:
    kind = type(shadow).__mro__[1]
    if kind is defaultdict:
        return defaultdict(shadow.default_factory, shadow)
    if kind is deque:
        return deque(shadow, shadow.maxlen)
    return kind(shadow)


def _telling(original: Any) -> Any:
    def write(self: Any, *args: Any, **kwargs: Any) -> Any:
        tell = getattr(self, TELL, None)  # not set in what the built-in kinds make of it, such as `one | other`
        if tell is not None:
            tell()
        return original(self, *args, **kwargs)

    return write


def _make_shadow(kind: type) -> type:
    # The name stays: it is what repr() and error messages show.
    body: dict[str, Any] = {name: _telling(getattr(kind, name)) for name in WRITES[kind]}
    body |= {
        "__slots__": (TELL,),
        "__module__": kind.__module__,
        "__reduce_ex__": lambda self, protocol: plain_of(self).__reduce_ex__(protocol),
        "__copy__": plain_of,
        "copy": plain_of,
        "__repr__": lambda self: repr(plain_of(self)),
    }
    if kind in (list, set, deque):
        body["__hash__"] = None
    return type(kind.__name__, (kind,), body)


SHADOWS: dict[type, type] = {kind: _make_shadow(kind) for kind in WRITES}

"""Dicts, lists and sets that call a function before each write: subclasses of the built-in types.

>>> writes = []
>>> items = tracked([1, 2], lambda: writes.append("write"))
>>> items.append(3); items, isinstance(items, list), writes
([1, 2, 3], True, ['write'])

A copy of one (copy.copy, pickling, `.copy()`) is an ordinary container and calls nothing.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

OnWrite = Callable[[], None]

ON_WRITE = "_snakepit_on_write"
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


def tracked(value: Any, on_write: OnWrite) -> Any:
    """Copy `value`, whose type must be exactly one of WRITES, into a container that calls `on_write`."""
    kind = type(value)
    make: Any = TRACKED[kind]
    if kind is defaultdict:
        made = make(value.default_factory, value)
    elif kind is deque:
        made = make(value, value.maxlen)
    elif kind is Counter:
        made = make()
        dict.update(made, value)  # Counter's own update adds to counts instead of setting them
    else:
        made = make(value)
    setattr(made, ON_WRITE, on_write)  # last: filling it is not a write
    return made


def untracked(value: Any) -> Any:
    kind = type(value).__mro__[1]
    if kind is defaultdict:
        return defaultdict(value.default_factory, value)
    if kind is deque:
        return deque(value, value.maxlen)
    return kind(value)


def _calling(original: Any) -> Any:
    def write(self: Any, *args: Any, **kwargs: Any) -> Any:
        on_write = getattr(self, ON_WRITE, None)  # not set on what operators make, such as `one | other`
        if on_write is not None:
            on_write()
        return original(self, *args, **kwargs)

    return write


def _make_tracked(kind: type) -> type:
    # The type keeps its name, which repr() and error messages show.
    body: dict[str, Any] = {name: _calling(getattr(kind, name)) for name in WRITES[kind]}
    body |= {
        "__slots__": (ON_WRITE,),
        "__module__": kind.__module__,
        "__reduce_ex__": lambda self, protocol: untracked(self).__reduce_ex__(protocol),
        "__copy__": untracked,
        "copy": untracked,
        "__repr__": lambda self: repr(untracked(self)),
    }
    if kind in (list, set, deque):
        body["__hash__"] = None
    return type(kind.__name__, (kind,), body)


TRACKED: dict[type, type] = {kind: _make_tracked(kind) for kind in WRITES}

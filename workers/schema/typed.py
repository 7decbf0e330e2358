"""The one codec of values between Python processes: JSON with tags, so that each value arrives as it was.

     value ──encode──▶ JSON ──decode──▶ the same value, or NotCarried with the path of the part that has no form

A result with tags is {"@typed": tree}; without that wrapper there is no tag in it. The arguments of a Python caller
begin with the key "@typed", which asks for such a result.

What JSON has is written as it is. Everything else is an object with one key, its tag: {"$date": "2026-01-02"}. A dict
of the user with one key that begins with "$" is written as {"$dict": [[key, value]]}, and so is one whose keys are no
strings. The tags are a closed list (`kinds`), and they are data: nothing is imported, called or unpickled because a
value names it. docs/reference/values.md has the list.

>>> encode({"at": date(2026, 1, 2), "$float": "nan"}, 100), encode({"a": [1, 2.5]}, 100)
(b'{"@typed":{"at":{"$date":"2026-01-02"},"$float":"nan"}}', b'{"a":[1,2.5]}')
>>> decode(encode([(1, 2), {1, 2}, float("inf"), {"$float": "nan"}, {1: 2}], 1000))
[(1, 2), {1, 2}, inf, {'$float': 'nan'}, {1: 2}]
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Mapping
from datetime import date  # noqa: F401  for the doctest
from typing import Any

from snakepit.workers.buffers import TAG, THRESHOLD, Incoming, Outgoing
from snakepit.workers.schema import json_text, kinds, short_arrays
from snakepit.workers.schema.json_text import MAX_DEPTH
from snakepit.workers.schema.not_carried import NotCarried, ValueTooLarge

WRAPPER = b'{"@typed":'
NAME = "@typed"
SCALARS = frozenset({str, int, float, bool, type(None)})
CONTAINERS = frozenset({list, dict})
PLAIN = SCALARS | CONTAINERS
TEXT = frozenset({str})
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def encode(value: Any, limit: int, what: str = "result", buffers: Outgoing | None = None) -> bytes:
    """Encode a result. Raises NotCarried with the path, ValueTooLarge, and BufferTooLarge.

    `buffers`: takes large parts, which then are not in the text.
    """
    data, has_tags = encode_tree(value, limit, what, buffers)
    # A dict whose first key is that of the wrapper must not look like one.
    return b"%s%s}" % (WRAPPER, data) if has_tags or data.startswith(WRAPPER) else data


def encode_tree(
    value: Any, limit: int, what: str, buffers: Outgoing | Callable[[], Outgoing] | None = None
) -> tuple[bytes, bool]:
    """Return the text of a value's tree, and whether it may have tags. `buffers` may be made when it is needed."""
    data = None
    try:
        if is_plain(value, TextRoom(limit, what)):
            try:
                data = _to_bytes(json_text.encode(value, _encoder))
            except ValueError:  # NaN, or an integer with too many digits for text
                data = None
        tags = data is None
        if data is None:
            text = short_arrays.text_of(value, buffers)
            if not text:
                made = buffers() if callable(buffers) else buffers
                text = _encoder(Tagger(limit, what, made).tree(value, 1))
            data = _to_bytes(text)
    except NotCarried as problem:
        raise problem.named(what) from None
    if len(data) > limit:
        raise ValueTooLarge(len(data), limit, what)
    return data, tags


class TextRoom:
    """How many bytes of JSON there is room for: commas, brackets and long texts are counted before they are written.

    A list that holds one other list many times, and that one a third, is small in memory and endless as text.
    """

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._left = limit

    def take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ValueTooLarge(self._limit - self._left, self._limit, self._what, at_least=True)


def is_plain(value: Any, room: TextRoom, levels: int = MAX_DEPTH) -> bool:
    """Whether JSON has the value as it is, apart from NaN. In passes over types in C, not value by value.

    Raises ValueTooLarge as soon as its elements have no room.
    """
    kind = type(value)
    if kind in SCALARS:
        return True
    if kind not in CONTAINERS or levels == 0:
        return False
    items: Iterable[Any] = value
    room.take(len(value) + 1)
    if kind is dict:
        if len(value) == 1:
            key = next(iter(value))
            if type(key) is not str or key[:1] in ("$", "@"):
                return False
        elif not TEXT.issuperset(map(type, value)):
            return False
        items = value.values()
    elif TEXT.issuperset(map(type, items)):
        room.take(sum(map(len, items)))
        return True
    if SCALARS.issuperset(map(type, items)):
        room.take(len(value))
        return True
    levels -= 1
    return all(type(item) in SCALARS or is_plain(item, room, levels) for item in items)


def check_room(value: Any, limit: int, what: str) -> None:
    """Raise ValueTooLarge if the lists and objects of a value have more elements than there is room for."""
    room, waiting = TextRoom(limit, what), [(value, MAX_DEPTH)]
    while waiting:
        one, levels = waiting.pop()
        if levels == 0 or not isinstance(one, list | tuple | dict):
            continue
        room.take(len(one) + 1)
        items = one.values() if isinstance(one, dict) else one
        if TEXT.issuperset(map(type, items)):
            room.take(sum(map(len, items)))
        elif SCALARS.issuperset(map(type, items)):
            room.take(len(one))
        else:
            waiting += [(item, levels - 1) for item in items if type(item) not in SCALARS]


def to_bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate: JSON can escape it, UTF-8 has no code for it
        return json.dumps(json.loads(text), separators=(",", ":")).encode("ascii")


def _to_bytes(text: str) -> bytes:
    """As `to_bytes`, but without loss: JSON reads the two escapes of a surrogate pair as one character."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        if _PAIR.search(text):
            raise NotCarried("has text with a surrogate pair; decode it as UTF-16 first") from None
        return to_bytes(text)


class Tagger:
    """Makes a tree of JSON's types from a value."""

    def __init__(self, limit: int, what: str, buffers: Outgoing | None = None) -> None:
        self._limit = limit
        self._what = what
        self.buffers = buffers
        self._size = 0  # bytes that the JSON text will have at least
        self._above: set[int] = set()  # ids of the containers around the current value

    def tree(self, value: Any, depth: int = 0) -> Any:
        """The tree; `depth` counts the objects and arrays of the text around it."""
        self.count(1)
        kind = type(value)
        if kind in SCALARS:
            if kind is float and value - value != 0.0:
                return {"$float": repr(value)}
            if kind is int and value.bit_length() > kinds.MAX_BITS:
                return {"$int": hex(value)}
            return value
        if depth >= MAX_DEPTH:
            raise NotCarried(f"is nested deeper than {MAX_DEPTH} levels of JSON; return less nested data")
        if id(value) in self._above:
            raise NotCarried("contains itself; return data without a cycle")
        self._above.add(id(value))
        try:
            return self._container(value, kind, depth)
        finally:
            self._above.discard(id(value))

    def count(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise ValueTooLarge(self._size, self._limit, self._what, at_least=True)

    def reserve(self, size: int) -> None:
        """Count the bytes of a blob before they are copied."""
        if self.buffers is not None and size >= THRESHOLD:
            self.buffers.check(size)
        else:
            self.count(size * 4 // 3)

    def blob(self, data: Any, *, final: bool = True) -> Any:
        """Bytes as base64, or as a part of a buffer. `final`: see `Restorer.blob`."""
        if type(data) is memoryview and not data.c_contiguous:
            data = bytes(data)  # every other byte, or a transposed view: base64 takes bytes in a row only
        if self.buffers is not None and memoryview(data).nbytes >= THRESHOLD:
            try:
                return {TAG: self.buffers.add(data, final=final)}
            except OSError:  # no memory or no descriptor for a file: as text, if it is small enough
                self.count(memoryview(data).nbytes * 4 // 3)
        return b64encode(data).decode("ascii")

    def restored(self, tree: Any) -> Any:
        """What arrives of a tree, for a form that is compared with the value before it is sent."""
        return Restorer(strict=True, buffers=self.buffers).value(tree)

    def items(self, values: Iterable[Any], depth: int) -> list[Any]:
        """The trees of some values, in order; a problem gets its index."""
        if isinstance(values, list | tuple) and _SAFE.issuperset(map(type, values)):
            self.count(len(values))
            return list(values)
        made: list[Any] = []
        try:
            for value in values:
                made.append(self.tree(value, depth))
        except NotCarried as problem:
            raise problem.below(f"[{len(made)}]") from None
        return made

    def mapping(self, value: Mapping[Any, Any], depth: int) -> Any:
        if TEXT.issuperset(map(type, value)) and not (len(value) == 1 and next(iter(value))[:1] == "$"):
            made = {}
            for key, item in value.items():
                made[key] = self._at(f".{key}" if key.isidentifier() else f"[{key!r}]", item, depth + 1)
            return made
        pairs = [self._pair(key, item, depth + 3) for key, item in value.items()]
        if len({json.dumps(key) for key, _ in pairs}) < len(pairs):  # a str and a member of an Enum with that value
            raise NotCarried("has two keys that arrive as the same value; pass a list of pairs")
        return {"$dict": pairs}

    def _pair(self, key: Any, item: Any, depth: int) -> list[Any]:
        step = f"[{kinds.shown(key)}]"
        return [self._at(f"{step} (the key)", key, depth), self._at(step, item, depth)]

    def _at(self, step: str, value: Any, depth: int) -> Any:
        try:
            return self.tree(value, depth)
        except NotCarried as problem:
            raise problem.below(step) from None

    def _container(self, value: Any, kind: type, depth: int) -> Any:
        if kind is dict:
            return self.mapping(value, depth)
        if kind is list:
            return self.items(value, depth + 1)
        if kind is tuple:
            return {"$tuple": self.items(value, depth + 2)}
        return kinds.tree(self, value, depth)


_SAFE = frozenset({str, bool, type(None)})  # types whose every value is written as it is


class Restorer:
    """Makes the value from a tree. `strict`: an unknown tag is an error; JSON callers may have a dict that looks so."""

    def __init__(self, *, strict: bool, buffers: Outgoing | Incoming | None = None) -> None:
        self._strict = strict
        self._buffers = buffers

    def blob(self, content: Any, *, final: bool = True) -> Any:
        """The bytes that a Tagger made a blob of: bytes, or a map of a buffer. Raises ValueError.

        `final`: they must not change any more. Only code for which any bytes are valid may do without.
        """
        if type(content) is str:
            return a2b_base64(content, strict_mode=True)
        if type(content) is not dict or content.keys() != {TAG} or self._buffers is None:
            raise ValueError("it must be text in base64")
        return self._buffers.view(content[TAG], final=final)

    def value(self, tree: Any) -> Any:
        kind = type(tree)
        if kind is list:
            return tree if SCALARS.issuperset(map(type, tree)) else self.items(tree)
        if kind is not dict:
            return tree
        if len(tree) == 1:
            tag = next(iter(tree))
            if tag[:1] == "$":
                return self._tagged(tag, tree[tag])
        made = {}
        for key, item in tree.items():
            made[key] = self.at(f".{key}" if key.isidentifier() else f"[{key!r}]", item)
        return made

    def items(self, trees: Any) -> list[Any]:
        if type(trees) is not list:
            raise NotCarried("must have an array for its tag")
        made: list[Any] = []
        try:
            for tree in trees:
                made.append(self.value(tree))
        except NotCarried as problem:
            raise problem.below(f"[{len(made)}]") from None
        return made

    def at(self, step: str, tree: Any) -> Any:
        try:
            return self.value(tree)
        except NotCarried as problem:
            raise problem.below(step) from None

    def _tagged(self, tag: str, content: Any) -> Any:
        restore = RESTORE.get(tag)
        if restore is None:
            if self._strict:
                raise NotCarried(f"has the unknown tag {tag[:40]!r}; update snakepit on this side")
            return {tag: self.value(content)}
        try:
            return restore(self, content)
        except NotCarried:
            raise
        except Exception as error:  # content that does not fit its tag: it came from outside
            reason = f"{type(error).__name__}: {error}"[:200]
            fix = f'for a dict with this key, write {{"$dict": [["{tag}", ...]]}}'
            raise NotCarried(f"has content that does not fit its tag {tag!r} ({reason}); {fix}") from None


def decode(data: bytes) -> Any:
    """Decode what `encode` made. Raises NotCarried."""
    tree = json.loads(data)
    return restore(tree) if data.startswith(WRAPPER) else tree


def restore(wrapped: Any, buffers: Incoming | None = None) -> Any:
    """Restore the parsed JSON of a result with tags. Raises NotCarried with the path."""
    try:
        return Restorer(strict=True, buffers=buffers).value(wrapped[NAME])
    except NotCarried as problem:
        raise problem.named("result") from None


RESTORE: dict[str, Callable[[Restorer, Any], Any]] = kinds.RESTORE

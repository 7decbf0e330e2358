"""Reads and writes JSON text faster than `json`, which does more than a short text or a long string needs.

The C encoder of `json` reads one character after the other; a search for the characters to escape reads whole words.
It matters for documents, or images in base64: 100 kB take the C encoder 0.2 ms, longer than their way through a socket.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring
from typing import Any

MAX_DEPTH = 64  # of a text, in levels
LONG = 8192  # characters of a string, from which this is faster
ESCAPES = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))
LITERALS: dict[Any, str] = {None: "null", True: "true", False: "false"}
RARE = tuple(chr(code) for code in range(32) if chr(code) not in "\n\r\t")


def encode(value: Any, encoder: Callable[[Any], str]) -> str:
    """Encode a value: long ASCII texts here, everything else with `encoder`, whose format this keeps.

    Only the value itself and the values of an object are examined, not what is deeper inside.
    """
    kind = type(value)
    if kind is str:
        return (encode_text(value) if len(value) >= LONG else "") or encoder(value)
    if kind is dict:
        for part in value.values():
            if type(part) is str and len(part) >= LONG:
                return _encode_object(value, encoder)
    return encoder(value)


def encode_flat(values: Mapping[str, Any]) -> str | None:
    """The members of an object of texts and numbers, without brackets; None: an encoder has to write them.

    An encoder of `json` makes another encoder for each object, which takes longer than a few short members.

    >>> encode_flat({"text": "é", "whole": -7, "number": 1e300, "yes": True, "none": None})
    '"text":"é","whole":-7,"number":1e+300,"yes":true,"none":null'
    >>> encode_flat({"parts": []}), encode_flat({"number": float("inf")}), encode_flat({1: 2})
    (None, None, None)
    """
    parts = []
    for name, value in values.items():
        text = encode_scalar(value)
        if type(name) is not str or not text:
            return None
        parts.append(f"{encode_basestring(name)}:{text}")
    return ",".join(parts)


def encode_scalar(value: Any) -> str:
    """A text or number as JSON; empty: an encoder has to write it. ValueError: it is an integer of too many digits."""
    kind = type(value)
    if kind is str:
        return encode_basestring(value) if len(value) < LONG else encode_text(value)
    if kind is int or (kind is float and value - value == 0.0):
        return repr(value)
    return LITERALS[value] if value is None or kind is bool else ""


def encode_text(text: str) -> str:
    r"""The text as JSON; empty if it has characters that this function does not escape.

    >>> encode_text('a "b"\n\\'), encode_text("é"), encode_text("\0")
    ('"a \\"b\\"\\n\\\\"', '', '')
    """
    if not text.isascii() or any(character in text for character in RARE):
        return ""
    for character, escape in ESCAPES:
        if character in text:
            text = text.replace(character, escape)
    return f'"{text}"'


def _encode_object(value: dict[Any, Any], encoder: Callable[[Any], str]) -> str:
    parts = []
    for name, part in value.items():
        if type(name) is not str:
            return encoder(value)
        text = encode_text(part) if type(part) is str and len(part) >= LONG else ""
        parts.append(f"{encoder(name)}:{text or encoder(part)}")
    return "{" + ",".join(parts) + "}"


_DECODER = json.JSONDecoder()


def parse(data: bytes) -> Any:
    """Parse like `json.loads`, without its detection of the encoding and white space: they cost more than a short text.

    >>> parse(b'{"a": [1, 2]}'), parse(b" 2 ")
    ({'a': [1, 2]}, 2)
    """
    try:
        text = data.decode()
        found, end = _DECODER.raw_decode(text)
    except ValueError:  # white space before it, or not JSON
        return json.loads(data)
    return found if end == len(text) else json.loads(data)


class NotFinite(ValueError):
    """The number is NaN or infinite, which JSON does not have, although Python's parser accepts it."""


def _refuse_constant(name: str) -> Any:
    raise NotFinite(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0.0:  # 1e999 reads as infinity
        raise NotFinite(f"{text[:40]} is too large for a float")
    return value


_STRICT = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")


def too_deep(text: bytes, limit: int = MAX_DEPTH) -> bool:
    """Whether JSON text nests deeper than `limit`. Without recursion, which would overflow the stack first.

    >>> too_deep(b"[[1], {}]", 2), too_deep(b"[[[1]]]", 2), too_deep(b'["[[[[["]', 2)
    (False, True, False)
    """
    # Most texts are flat. A search for a bracket reads words and stops early; a count reads every character.
    if limit and text.find(b"{", 1) < 0 and text.find(b"[", 1) < 0:
        return False
    if text.count(b"[") + text.count(b"{") <= limit:
        return False
    brackets = _STRINGS.sub(b"", text).translate(_AS_SQUARE, _NOT_BRACKETS)
    for _ in range(limit):
        # Each pass removes the innermost pairs, in C.
        shorter = brackets.replace(b"[]", b"")
        if len(shorter) == len(brackets):
            return bool(brackets) and brackets.count(b"[") > limit
        brackets = shorter
    return bool(brackets)


def parse_strictly(text: str) -> Any:
    """Parse, and refuse NaN and infinity, without the two searches for white space of JSONDecoder.decode.

    They take longer than a short text.
    """
    if text[:1] == "{":
        given, end = _STRICT.raw_decode(text)
        if end == len(text):
            return given
    return _STRICT.decode(text)


def has_tags(data: bytes) -> bool:
    r"""Whether JSON text may hold a tag.

    >>> has_tags(b'{"$bytes":""}'), has_tags(b'{"\\u0024bytes":""}'), has_tags(b'{"price":"5 $"}')
    (True, True, False)
    """
    # Not `in`: bytes first try to read the left side as a number, and drop the error.
    return data.find(b'"$') >= 0 or data.find(b"\\u0024") >= 0

"""What a worker tells its broker, as plain values; `server` turns them into protobuf.

A Result, a Delivered or a Failure is the last word about its sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OVERHEAD = 64  # what a report weighs on the wire beside its payload, about

MAX_TEXT = 8 * 1024  # one log line or progress message


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Text that protobuf accepts: lone surrogates replaced (it refuses them), length bounded.

    >>> clean("a\\ud800b"), clean("abcdef", 4)
    ('a?b', 'abc…')
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class Value:
    """A result or chunk on its way out: UTF-8 JSON, or bytes as they are."""

    data: bytes
    raw: bool = False


@dataclass(slots=True)
class Result:
    sequence: int
    value: Value | None  # None at the end of a stream
    seconds: float = 0.0

    @property
    def size(self) -> int:
        return OVERHEAD + (len(self.value.data) if self.value else 0)


@dataclass(slots=True)
class Delivered:
    """The call ended well, and its caller has the result already."""

    sequence: int
    seconds: float = 0.0
    size: int = OVERHEAD


@dataclass(slots=True)
class Failure:
    sequence: int
    code: str
    message: str
    type: str = ""
    traceback: str = ""
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return OVERHEAD + len(self.message) + len(self.traceback)


@dataclass(slots=True)
class Revoked:
    """The broker revoked this call before it began."""

    sequence: int
    size: int = OVERHEAD


@dataclass(slots=True)
class Chunk:
    sequence: int
    value: Value

    @property
    def size(self) -> int:
        return OVERHEAD + len(self.value.data)


@dataclass(slots=True)
class Progress:
    sequence: int
    fraction: float
    message: str

    @property
    def size(self) -> int:
        return OVERHEAD + len(self.message)


@dataclass(slots=True)
class Log:
    sequence: int
    message: str

    @property
    def size(self) -> int:
        return OVERHEAD + len(self.message)


@dataclass(slots=True)
class Vitals:
    nonce: int
    served: int
    load: int
    gil_enabled: bool
    gil_culprit: str
    size: int = OVERHEAD


@dataclass(slots=True)
class Race:
    """Two threads wrote to the same state, with no lock in common; see `Race` in worker.proto."""

    attribute: str
    first_thread: str
    first_stack: str
    second_thread: str
    second_stack: str
    size: int = 16 * 1024


@dataclass(slots=True)
class Hello:
    """What the worker is; see `Hello` in worker.proto."""

    facts: Mapping[str, Any]
    commands: tuple[Mapping[str, Any], ...]
    size: int = OVERHEAD


@dataclass(slots=True)
class BootFailure:
    type: str
    message: str
    traceback: str
    size: int = OVERHEAD


Report = Result | Delivered | Failure | Revoked | Chunk | Progress | Log | Vitals | Race | Hello | BootFailure

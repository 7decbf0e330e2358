"""The check of stored arguments agrees with the worker's own check."""

from __future__ import annotations

import dataclasses
import enum
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import pytest

from snakepit.pools.jobs.schema_check import problems
from snakepit.workers.schema.signature import InvalidArguments, signature_of


class Colour(enum.Enum):
    RED = 1
    GREEN = "green"


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


@dataclasses.dataclass
class Tree:
    leaf: int
    below: list[Tree] | None = None


def plain(number: float, count: int, text: str, flag: bool = False) -> None: ...
def collections(values: list[float], table: dict[str, int], pair: tuple[int, str], names: set[str]) -> None: ...
def choices(colour: Colour, size: Literal["s", 1], either: int | str | None = None) -> None: ...
def structures(point: Point, tree: Tree) -> None: ...
def raw(data: bytes, anything: Any = None) -> None: ...
def times(at: datetime) -> None: ...
def open_ended(first: int, **rest: float) -> None: ...


GOOD: list[tuple[Callable[..., None], dict[str, Any]]] = [
    (plain, {"number": 1, "count": 2, "text": "x", "flag": True}),
    (plain, {"number": 1.5, "count": -2, "text": ""}),
    (collections, {"values": [1, 2.5], "table": {"a": 1}, "pair": [1, "a"], "names": ["a"]}),
    (choices, {"colour": "green", "size": 1}),
    (choices, {"colour": 1, "size": "s", "either": None}),
    (choices, {"colour": 1, "size": "s", "either": "x"}),
    (structures, {"point": {"x": 1}, "tree": {"leaf": 1, "below": [{"leaf": 2, "below": None}]}}),
    (raw, {"data": {"$bytes": b64encode(b"x").decode()}, "anything": {"$bytes": "eA=="}}),
    (raw, {"data": "eA==", "anything": [{"a": None}]}),
    (times, {"at": "2026-01-31T12:00:00"}),
    (open_ended, {"first": 1, "second": 2.5}),
]
BAD: list[tuple[Callable[..., None], dict[str, Any]]] = [
    (plain, {"number": "1", "count": 2, "text": "x"}),
    (plain, {"number": True, "count": 2, "text": "x"}),
    (plain, {"number": 1, "count": 2.0, "text": "x"}),
    (plain, {"number": 1, "count": True, "text": "x"}),
    (plain, {"number": 1, "count": 2, "text": None}),
    (plain, {"number": 1, "count": 2, "text": "x", "flag": 1}),
    (plain, {"number": 1, "count": 2}),
    (plain, {"number": 1, "count": 2, "text": "x", "more": 1}),
    (collections, {"values": [1, "2"], "table": {}, "pair": [1, "a"], "names": []}),
    (collections, {"values": [], "table": {"a": "1"}, "pair": [1, "a"], "names": []}),
    (collections, {"values": [], "table": {}, "pair": [1], "names": []}),
    (collections, {"values": [], "table": {}, "pair": ["a", 1], "names": []}),
    (collections, {"values": {"$bytes": "eA=="}, "table": {}, "pair": [1, "a"], "names": []}),
    (choices, {"colour": "blue", "size": 1}),
    (choices, {"colour": True, "size": 1}),
    (choices, {"colour": 1, "size": "s", "either": 1.5}),
    (structures, {"point": {"y": 1}, "tree": {"leaf": 1}}),
    (structures, {"point": {"x": 1, "z": 1}, "tree": {"leaf": 1}}),
    (structures, {"point": {"x": 1}, "tree": {"leaf": 1, "below": [{"leaf": "x"}]}}),
    (raw, {"data": 7}),
    (open_ended, {"first": 1, "second": "x"}),
]


def shown(value: Any) -> str:
    """The id of a case: the same in every process, so without a function's address."""
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize(("command", "arguments"), GOOD, ids=shown)
def test_what_a_worker_accepts_is_accepted(command: Callable[..., None], arguments: dict[str, Any]) -> None:
    signature = signature_of(command)
    signature.check(arguments)
    assert problems(signature.schema, arguments) == {}


@pytest.mark.parametrize(("command", "arguments"), BAD, ids=shown)
def test_what_a_worker_refuses_is_refused_for_the_same_arguments(
    command: Callable[..., None], arguments: dict[str, Any]
) -> None:
    signature = signature_of(command)
    with pytest.raises(InvalidArguments) as refusal:
        signature.check(arguments)
    assert problems(signature.schema, arguments).keys() == refusal.value.problems.keys()


def test_an_empty_schema_accepts_everything() -> None:
    assert problems({}, {"x": object()}) == {}

"""The short way of arrays writes what the general way writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from snakepit.workers.buffers import LARGEST_INLINE, BufferTooLarge, Outgoing
from snakepit.workers.schema import short_arrays, typed
from snakepit.workers.schema.not_carried import ValueTooLarge

np = pytest.importorskip("numpy")
MIB = 2**20

VALUES: dict[str, Callable[[], Any]] = {
    "large": lambda: np.arange(5000.0),
    "small": lambda: np.arange(3, dtype="<f4"),
    "two dimensions": lambda: np.arange(60_000, dtype="<u2").reshape(2, 300, 100)[1],
    "truth": lambda: np.ones((100, 100), dtype=bool),
    "half": lambda: np.ones(9000, dtype="<f2"),
    "arguments": lambda: {
        "@typed": 1,
        "a": np.arange(2000.0),
        'b "': "té",
        "c": None,
        "d": np.zeros((3, 3, 3)),
        "e": 1.5,
    },
    "surrogate": lambda: {"a": np.arange(3.0), "b": "\ud800"},
    "key of one": lambda: {"value": np.arange(2000.0)},
}
GENERAL: dict[str, Callable[[], Any]] = {
    "strides": lambda: np.arange(5000.0)[::2],
    "Fortran": lambda: np.asfortranarray(np.arange(6000.0).reshape(2, 3000)),
    "big-endian": lambda: np.arange(2000, dtype=">f8"),
    "complex": lambda: np.ones(2000, dtype="c16"),
    "time": lambda: np.arange(2000).astype("M8[s]"),
    "text": lambda: np.array(["a", "b"]),
    "records": lambda: np.zeros(3, dtype=[("a", "<f8"), ("b", "<i4")]),
    "no items": lambda: np.zeros((0, 3)),
    "no dimension": lambda: np.array(1.5),
    "masked": lambda: np.ma.array([1.0, 2.0], mask=[True, False]),
    "subclass": lambda: np.arange(4.0).view(type("Own", (np.ndarray,), {})),
    "too large": lambda: np.zeros(LARGEST_INLINE + 8, dtype="u1"),
    "too large together": lambda: {"a": np.zeros(60_000, dtype="u1"), "b": np.zeros(60_000, dtype="u1")},
    "a key like a tag": lambda: {"$ndarray": np.arange(3.0)},
    "a key of another type": lambda: {"a": np.arange(3.0), 1: 2},
    "deeper": lambda: {"a": [np.arange(3.0)]},
    "not finite": lambda: {"a": np.arange(3.0), "b": float("nan")},
    "a large integer": lambda: {"a": np.arange(3.0), "b": 10**5000},
}


def general(value: Any, buffers: Outgoing | None) -> str:
    return typed._encoder(typed.Tagger(MIB, "value", buffers).tree(value, 1))


@pytest.mark.parametrize("make", VALUES.values(), ids=VALUES)
def test_the_text_and_the_parts_are_those_of_the_general_way(make: Callable[[], Any]) -> None:
    ours, theirs = Outgoing(MIB), Outgoing(MIB)
    assert short_arrays.text_of(make(), ours) == general(make(), theirs)
    assert (ours.inline, ours.size) == (theirs.inline, theirs.size)
    assert short_arrays.text_of(make(), None) == general(make(), None)


@pytest.mark.parametrize("make", GENERAL.values(), ids=GENERAL)
def test_other_values_take_the_general_way_and_leave_no_part(make: Callable[[], Any]) -> None:
    buffers = Outgoing(MIB)
    assert short_arrays.text_of(make(), lambda: buffers) == ""
    assert (buffers.inline, buffers.size) == (b"", 0)


def test_a_limit_holds_on_the_short_way() -> None:
    with pytest.raises(BufferTooLarge, match="max_buffer is 9,000"):
        typed.encode(np.zeros(1250), MIB, buffers=Outgoing(9000))
    with pytest.raises(ValueTooLarge):
        typed.encode(np.zeros(1250), 9000)

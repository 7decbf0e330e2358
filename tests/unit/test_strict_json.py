"""JSON from outside is read in a time that grows as its size, also where it is refused."""

from __future__ import annotations

import pytest

from snakepit.pools.broker.json_keys import RepeatedKey, unrepeated


class Name(str):
    """A key of an object that counts its comparisons."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_a_key_that_is_there_twice_is_found_without_comparing_each_key_with_each() -> None:
    """With 16,000 keys, 7 s passed, in which the event loop of the web server did nothing else."""
    names = [Name(f"k{number}") for number in range(1000)]
    with pytest.raises(RepeatedKey, match="k999"):
        unrepeated([(name, 0) for name in (*names, Name("k999"))])
    assert 0 < Name.compared < 3000

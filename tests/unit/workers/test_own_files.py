"""The look for descriptors that other code has closed, beside threads that open and close their own."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Iterator

import pytest

from snakepit.workers.transport import own_files
from snakepit.workers.transport.own_files import DescriptorGone, OwnSelector


@pytest.fixture
def selector() -> Iterator[OwnSelector]:
    made = OwnSelector()
    yield made
    made.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    made = socket.socketpair()
    yield made
    for one in made:
        one.close()


def meanwhile(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Do something, as another thread would, at the first look at a descriptor."""
    look, left = own_files.is_same, [work]

    def is_same(*given: object) -> bool:
        if left:
            left.pop()()
        return look(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(own_files, "is_same", is_same)


def test_a_descriptor_that_is_registered_during_the_look_is_not_missed(
    selector: OwnSelector, ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    selector.register(ends[0], selectors.EVENT_READ)
    meanwhile(monkeypatch, lambda: selector.register(ends[1], selectors.EVENT_READ))
    selector.check()


def test_a_descriptor_that_its_owner_closes_during_the_look_is_not_missed(
    selector: OwnSelector, ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    selector.register(ends[0], selectors.EVENT_READ)

    def replace() -> None:
        selector.unregister(ends[0])
        ends[0].close()
        selector.register(ends[1], selectors.EVENT_READ)

    meanwhile(monkeypatch, replace)
    selector.check()


def test_a_descriptor_that_other_code_closes_is_missed(
    selector: OwnSelector, ends: tuple[socket.socket, socket.socket]
) -> None:
    for one in ends:
        selector.register(one, selectors.EVENT_READ)
    ends[1].close()
    with pytest.raises(DescriptorGone):
        selector.check()

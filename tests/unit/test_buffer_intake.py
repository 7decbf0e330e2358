"""How much the broker may hold for large arguments; the sockets are in tests/process/acceptance/test_buffers.py."""

from __future__ import annotations

import pytest

from snakepit.pools.adapters.grpc import unclaimed
from snakepit.pools.adapters.grpc.buffer_intake import BufferCount
from snakepit.pools.adapters.grpc.unclaimed import Unclaimed
from snakepit.pools.broker.errors import QueueFull
from snakepit.pools.broker.messages import PARTS
from snakepit.workers.buffers import ATTACHMENT


def test_open_calls_have_a_bound_of_descriptors() -> None:
    count = BufferCount(most_files=2, most_bytes=1000)
    count.add(2, 10)
    with pytest.raises(QueueFull, match="2 descriptors are open for large arguments and 2 may"):
        count.check(1, 10)
    count.add(-1, -5)
    count.check(1, 10)


def test_open_calls_have_a_bound_of_bytes_and_a_first_call_has_none() -> None:
    count = BufferCount(most_files=9, most_bytes=1000)
    count.check(1, 5000)
    count.add(1, 600)
    count.check(1, 400)
    with pytest.raises(QueueFull, match="of open calls have 600 bytes and may have 1,000; wait for results"):
        count.check(1, 401)


def test_parts_wait_for_their_call_from_one_expiry_to_the_next() -> None:
    waiting = Unclaimed()
    waiting.put(1, memoryview(b"first"))
    assert waiting.expire()
    waiting.put(2, memoryview(b"second"))
    assert waiting.expire()
    assert [waiting.take(1), waiting.take(2)] == [None, b"second"]
    assert not waiting.expire()


def test_the_oldest_bytes_without_a_call_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unclaimed, "MOST_BYTES", 10)
    waiting = Unclaimed()
    for number, data in enumerate((b"1234", b"1234", b"1234", b"12", b"12345"), start=1):
        waiting.put(number, memoryview(data))
    waiting.put(5, memoryview(b"1234"))  # a number that was used before
    assert [waiting.take(number) for number in range(1, 6)] == [None, None, None, b"12", b"1234"]
    waiting.put(6, memoryview(b"0123456789"))
    assert waiting.take(6) == b"0123456789"


def test_broker_and_worker_have_one_name_for_the_parts_in_a_message() -> None:
    assert PARTS == ATTACHMENT

"""How much the broker may hold for large arguments; the sockets are in tests/process/acceptance/test_buffers.py."""

from __future__ import annotations

import pytest

from snakepit.pools.adapters.grpc.buffer_intake import BufferCount
from snakepit.pools.broker.errors import QueueFull


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

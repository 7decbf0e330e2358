"""Large values in `snakepit.testing`: the limits and the arrays of a real pool, and no descriptor is left."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from snakepit import connect
from snakepit.pools.broker.errors import PayloadTooLarge, ResultTooLarge
from snakepit.testing import Pools, override_pools
from snakepit.workers.memory_file import are_possible

np = pytest.importorskip("numpy")
pytestmark = pytest.mark.skipif(not are_possible(), reason="this system has no sealed memory files")
MIB = 2**20


@pytest.fixture
def pools() -> Iterator[Pools]:
    from tests.large import Large

    small = {"adapter": Large, "max_buffer": 2 * MIB}
    with override_pools({"large": {"adapter": Large, "size": 1}, "small": small}) as found:
        yield found


def test_large_arguments_and_results_are_bounded_by_max_buffer_and_not_by_max_payload(pools: Pools) -> None:
    client = connect()
    assert client.call("large", "total", value=np.ones(MIB // 4)) == ["ndarray", MIB / 4]
    assert client.call("large", "total", value=b"x" * 2 * MIB) == ["bytes", 2 * MIB]
    found = client.call("large", "ones", size=3 * MIB)
    assert found.sum() == 3 * MIB // 8
    found[0] = 2  # it belongs to the caller
    assert client.call("large", "bytes_of", size=3 * MIB) == b"x" * 3 * MIB
    assert client.call("large", "doubled", value=found)[0] == 4
    assert [frame[0] for frame in client.stream("large", "frames", sizes=[80, 3 * MIB], placed=True)] == [0, 1]
    with pytest.raises(PayloadTooLarge, match="max_buffer of pool small"):
        client.call("small", "total", value=np.ones(MIB // 2))
    with pytest.raises(ResultTooLarge, match="max_buffer"):
        client.call("small", "ones", size=4 * MIB)
    with pytest.raises(ResultTooLarge, match="max_payload"):
        client.call("large", "text", size=2 * MIB)


def test_a_command_computes_in_the_memory_of_its_result(pools: Pools) -> None:
    found = connect().call("large", "placed", size=3 * MIB, keep=True)
    assert found["shared"]
    assert connect().call("large", "write_kept") == 5.0
    assert (found["out"] == 1).all()


def test_a_call_with_large_arguments_is_noted_with_their_values(pools: Pools) -> None:
    connect().call("large", "total", value=b"x" * 2 * MIB)
    pools.calls.assert_called_with("large", "total", value=b"x" * 2 * MIB)


def test_no_descriptor_is_left(pools: Pools) -> None:
    from snakepit.workers.kept_files import MOST_FILES
    from tests.large import memory_files

    for _ in range(20):
        connect().call("large", "doubled", value=np.ones(MIB // 4))
    pools.calls.clear()
    gc.collect()
    # Those that are kept, and those of the last call, which its worker's thread may not have dropped yet.
    assert memory_files(os.getpid()) <= MOST_FILES + 4

"""Results with buffers on real sockets: the worker's side."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit.pools.client.call_messages import Delivered
from snakepit.workers.buffers import ROOM, received
from snakepit.workers.call import AssignedCall
from snakepit.workers.memory_file import are_possible
from snakepit.workers.report import DeliveredReport, EncodedValue, FailureReport, ResultReport
from snakepit.workers.schema.value import encode
from snakepit.workers.transport.direct_reply import DirectReplySender
from snakepit.workers.wire.worker_pb2 import Delivery

pytestmark = pytest.mark.skipif(not are_possible(), reason="this system has no sealed memory files")
np = pytest.importorskip("numpy")
MIB = 2**20


@pytest.fixture
def sender() -> Iterator[DirectReplySender]:
    made = DirectReplySender("w-1")
    yield made
    made.close()


def call_of(taker: Path) -> AssignedCall:
    return AssignedCall(1, "run", b'{"@typed":1}', max_result=MIB, buffer_socket=str(taker), max_buffer=64 * MIB)


def deliver(sender: DirectReplySender, call: AssignedCall, value: object) -> object:
    encoded = encode(value, MIB, tags=True, buffers=call.new_buffers())
    return sender.deliver(call, ResultReport(1, encoded))


def test_the_descriptors_come_with_the_datagram(sender: DirectReplySender, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.bind(str(tmp_path / "client"))
        assert deliver(sender, call_of(tmp_path / "client"), np.ones(MIB)) == DeliveredReport(1, 0.0, 8 * MIB)
        data, ancillary, _, _ = client.recvmsg(2**18, ROOM, socket.MSG_CMSG_CLOEXEC)
        assert Delivered(Delivery.FromString(data), received(ancillary)).value().sum() == MIB


def test_long_text_goes_in_shared_memory_too(sender: DirectReplySender, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.bind(str(tmp_path / "client"))
        text = json.dumps(["x" * 1000] * 500).encode()
        last = sender.deliver(call_of(tmp_path / "client"), ResultReport(1, EncodedValue(text)))
        assert last == DeliveredReport(1, 0.0, len(text))
        data, ancillary, _, _ = client.recvmsg(2**18, ROOM, socket.MSG_CMSG_CLOEXEC)
        assert Delivered(Delivery.FromString(data), received(ancillary)).value() == ["x" * 1000] * 500


def test_a_result_whose_caller_is_gone_goes_through_the_broker(sender: DirectReplySender, tmp_path: Path) -> None:
    last = deliver(sender, call_of(tmp_path / "missing"), np.ones(50_000))
    assert isinstance(last, ResultReport)
    assert last.value is not None
    assert Delivered(Delivery(json=last.value.data)).value().sum() == 50_000


def test_beyond_max_payload_it_is_an_error_that_says_why(sender: DirectReplySender, tmp_path: Path) -> None:
    last = deliver(sender, call_of(tmp_path / "missing"), np.ones(MIB))
    assert isinstance(last, FailureReport)
    assert last.code == "result_too_large"
    assert "did not take it in shared memory" in last.message

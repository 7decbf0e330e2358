"""Results that a worker brings to their callers itself, on real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit.workers.call import Call
from snakepit.workers.courier import LARGEST, LETTER, Courier
from snakepit.workers.report import Delivered, Failure, Result, Value
from snakepit.workers.wire.worker_pb2 import Delivery


@pytest.fixture
def courier() -> Iterator[Courier]:
    made = Courier("p-1")
    yield made
    made.close()


@pytest.fixture
def letterbox(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "box"))
        made.setblocking(False)
        yield made


@pytest.fixture
def call(tmp_path: Path) -> Call:
    return Call(5, "echo", call_id="c-5", letterbox=str(tmp_path / "box"), ref=7, queued=0.25)


def test_a_letter_says_all_that_a_caller_may_ask(courier: Courier, letterbox: socket.socket, call: Call) -> None:
    assert courier.deliver(call, Result(5, Value(b'"x"'), 0.5)) == Delivered(5, 0.5)
    expected = Delivery(ref=7, json=b'"x"', call="c-5", worker="p-1", queued_seconds=0.25, run_seconds=0.5)
    assert Delivery.FromString(letterbox.recv(LETTER)) == expected


def test_the_largest_letter_fits_into_one_read(courier: Courier, letterbox: socket.socket, call: Call) -> None:
    call.call_id = "c" * 100
    assert isinstance(courier.deliver(call, Result(5, Value(b"1" * LARGEST), 0.5)), Delivered)
    assert len(letterbox.recv(2 * LETTER)) <= LETTER


@pytest.mark.parametrize(
    "last",
    [
        Result(5, None),
        Result(5, Value(b"\x00", raw=True)),
        Result(5, Value(b"1" * (LARGEST + 1))),
        Failure(5, "adapter_error", "no"),
    ],
    ids=["the end of a stream", "bytes", "too large", "a failure"],
)
def test_everything_else_is_for_the_broker(
    courier: Courier, letterbox: socket.socket, call: Call, last: Result | Failure
) -> None:
    assert courier.deliver(call, last) is last
    with pytest.raises(BlockingIOError):
        letterbox.recv(LETTER)


def test_a_letterbox_that_is_gone_full_or_no_letterbox_leaves_the_result_to_the_broker(
    courier: Courier, letterbox: socket.socket, call: Call, tmp_path: Path
) -> None:
    result = Result(5, Value(b"1"))
    sent = 0
    while courier.deliver(call, result) is not result:
        sent += 1
        assert sent < 10_000
    for _ in range(sent):  # what was accepted is all there
        assert letterbox.recv(LETTER)
    (tmp_path / "file").touch()
    for path in (tmp_path / "nothing", tmp_path / "file", tmp_path / ("n" * 200)):
        call.letterbox = str(path)
        assert courier.deliver(call, result) is result

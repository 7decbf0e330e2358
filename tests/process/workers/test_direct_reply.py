"""Direct replies on real sockets: the worker's side."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit.workers.call import AssignedCall
from snakepit.workers.report import DeliveredReport, EncodedValue, FailureReport, ResultReport
from snakepit.workers.transport.direct_reply import LARGEST_DELIVERY, LARGEST_RESULT, DirectReplySender
from snakepit.workers.wire.worker_pb2 import Delivery


@pytest.fixture
def direct_reply() -> Iterator[DirectReplySender]:
    made = DirectReplySender("p-1")
    yield made
    made.close()


@pytest.fixture
def reply_socket(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "reply"))
        made.setblocking(False)
        yield made


@pytest.fixture
def call(tmp_path: Path) -> AssignedCall:
    return AssignedCall(5, "echo", call_id="c-5", reply_socket=str(tmp_path / "reply"), ref=7, queued=0.25)


def test_a_delivery_has_the_result_and_its_timing(
    direct_reply: DirectReplySender, reply_socket: socket.socket, call: AssignedCall
) -> None:
    assert direct_reply.deliver(call, ResultReport(5, EncodedValue(b'"x"'), 0.5)) == DeliveredReport(5, 0.5)
    expected = Delivery(ref=7, json=b'"x"', call="c-5", worker="p-1", queued_seconds=0.25, run_seconds=0.5)
    assert Delivery.FromString(reply_socket.recv(LARGEST_DELIVERY)) == expected


def test_the_largest_delivery_fits_into_one_read(
    direct_reply: DirectReplySender, reply_socket: socket.socket, call: AssignedCall
) -> None:
    call.call_id = "c" * 100
    assert isinstance(
        direct_reply.deliver(call, ResultReport(5, EncodedValue(b"1" * LARGEST_RESULT), 0.5)), DeliveredReport
    )
    assert len(reply_socket.recv(2 * LARGEST_DELIVERY)) <= LARGEST_DELIVERY


@pytest.mark.parametrize(
    "last",
    [
        ResultReport(5, None),
        ResultReport(5, EncodedValue(b"\x00", raw=True)),
        ResultReport(5, EncodedValue(b"1" * (LARGEST_RESULT + 1))),
        FailureReport(5, "adapter_error", "no"),
    ],
    ids=["the end of a stream", "bytes", "too large", "a failure"],
)
def test_every_other_report_goes_to_the_broker(
    direct_reply: DirectReplySender, reply_socket: socket.socket, call: AssignedCall, last: ResultReport | FailureReport
) -> None:
    assert direct_reply.deliver(call, last) is last
    with pytest.raises(BlockingIOError):
        reply_socket.recv(LARGEST_DELIVERY)


def test_without_a_reply_socket_that_takes_it_the_result_goes_to_the_broker(
    direct_reply: DirectReplySender, reply_socket: socket.socket, call: AssignedCall, tmp_path: Path
) -> None:
    result = ResultReport(5, EncodedValue(b"1"))
    sent = 0
    while direct_reply.deliver(call, result) is not result:
        sent += 1
        assert sent < 10_000
    for _ in range(sent):  # what was accepted is all there
        assert reply_socket.recv(LARGEST_DELIVERY)
    (tmp_path / "file").touch()
    for path in (tmp_path / "nothing", tmp_path / "file", tmp_path / ("n" * 200)):
        call.reply_socket = str(path)
        assert direct_reply.deliver(call, result) is result


def bound(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(path))
    made.settimeout(60)
    return made


def call_of(path: Path, ref: int) -> AssignedCall:
    return AssignedCall(ref, "echo", reply_socket=str(path), ref=ref)


def test_clients_that_call_by_turns_get_their_own_results(direct_reply: DirectReplySender, tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    with bound(paths[0]) as one, bound(paths[1]) as two:
        for ref in range(6):
            last = ResultReport(ref, EncodedValue(b"1"))
            assert isinstance(direct_reply.deliver(call_of(paths[ref % 2], ref), last), DeliveredReport)
        for made, refs in ((one, [0, 2, 4]), (two, [1, 3, 5])):
            assert [Delivery.FromString(made.recv(LARGEST_DELIVERY)).ref for _ in refs] == refs


def test_threads_that_send_at_once_do_not_mix_up_their_clients(direct_reply: DirectReplySender, tmp_path: Path) -> None:
    paths, last = [tmp_path / "one", tmp_path / "two"], ResultReport(1, EncodedValue(b"1"))
    refs: list[set[int]] = [set(), set()]

    def send(number: int) -> None:
        for _ in range(2000):
            direct_reply.deliver(call_of(paths[number], number), last)
            with contextlib.suppress(BlockingIOError):
                refs[number].add(Delivery.FromString(ends[number].recv(LARGEST_DELIVERY)).ref)

    interval = sys.getswitchinterval()
    with bound(paths[0]) as one, bound(paths[1]) as two:
        ends = (one, two)
        for end in ends:
            end.setblocking(False)
        threads = [threading.Thread(target=send, args=(number,)) for number in (0, 1)]
        try:
            sys.setswitchinterval(1e-6)
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
    assert refs == [{0}, {1}]


def test_a_client_that_took_the_path_of_one_that_ended_gets_results(
    direct_reply: DirectReplySender, tmp_path: Path
) -> None:
    path, last = tmp_path / "reply", ResultReport(5, EncodedValue(b"1"))
    with bound(path):
        assert isinstance(direct_reply.deliver(call_of(path, 1), last), DeliveredReport)
    assert direct_reply.deliver(call_of(path, 2), last) is last
    path.unlink()
    with bound(path) as made:
        assert isinstance(direct_reply.deliver(call_of(path, 3), last), DeliveredReport)
        assert Delivery.FromString(made.recv(LARGEST_DELIVERY)).ref == 3

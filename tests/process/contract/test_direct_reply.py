"""Direct replies on real sockets: the client's side."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit.pools.broker.errors import DeadlineExceeded
from snakepit.pools.client import Answer, Client, Log, Progress, connect
from snakepit.pools.client.arguments import Options, encode
from snakepit.pools.client.direct_reply import DirectReplySocket
from snakepit.pools.client.loop_thread import at_level
from snakepit.pools.client.session import session_on
from snakepit.pools.client.streams import Stream
from snakepit.workers.wire.worker_pb2 import Delivery
from tests.brokers import PATIENCE
from tests.process.contract.fake_broker import POOL, FakeBroker
from tests.process.contract.test_client import ROOT, nothing_sent


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[FakeBroker]:
    broker = FakeBroker(tmp_path, delivers=True).start()
    yield broker
    broker.stop()


@pytest.fixture
def client(broker: FakeBroker) -> Iterator[Client]:
    with connect(broker.address, connect_timeout=PATIENCE) as client:
        yield client


def reply_sockets(directory: Path) -> list[Path]:
    return sorted(directory.glob("r-*"))


def put(path: Path, *deliveries: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for delivery in deliveries:
            sender.sendto(delivery, str(path))


def test_the_result_of_a_lone_call_arrives_in_the_reply_socket_with_its_timing(
    client: Client, broker: FakeBroker
) -> None:
    answer = client.execute(POOL, "echo", a=1)
    assert answer == Answer({"a": 1}, answer.call, "echo-1", 0.25, 0.5)
    assert client.submit(POOL, "echo", a=2).result(PATIENCE) == {"a": 2}
    assert broker.delivered == 2


def test_a_lone_call_of_an_event_loop_is_answered_in_the_reply_socket(client: Client, broker: FakeBroker) -> None:
    assert asyncio.run(client.acall(POOL, "echo", a=1)) == {"a": 1}
    assert broker.delivered == 1


def test_a_call_beside_another_one_and_bytes_come_through_the_broker(client: Client, broker: FakeBroker) -> None:
    with_company = client.submit(POOL, "mute")
    assert broker.running.wait(PATIENCE)
    assert client.call(POOL, "echo", a=1) == {"a": 1}
    with_company.cancel()
    assert client.call(POOL, "raw", data=b"\x00") == b"\x00"
    assert broker.delivered == 0


def test_log_lines_arrive_before_the_result_of_a_call_that_wants_them(client: Client, broker: FakeBroker) -> None:
    """Also where no chunks are wanted, as `snakepit call` does it, and among calls that could travel together."""
    with nothing_sent():
        streams = [
            Stream(client.target, encode(POOL, "noisy", None, {}, Options()), only_chunks=False) for _ in range(3)
        ]
    for stream in streams:
        progress, log, answer = stream
        assert (progress, log) == (Progress(0.5, "half"), Log("a line"))
        assert isinstance(answer, Answer)
        assert answer.value == "done"
    assert broker.delivered == 0


def test_a_reply_socket_ignores_nonsense_and_results_that_no_call_waits_for(client: Client, broker: FakeBroker) -> None:
    client.call(POOL, "echo")
    (path,) = reply_sockets(broker.path.parent)
    put(path, b"\xff\xff\xff", b"", Delivery(ref=10**9, json=b"1").SerializeToString())
    assert client.call(POOL, "echo", a=1) == {"a": 1}
    assert broker.delivered == 2


def test_a_result_that_is_delivered_twice_answers_once(client: Client, broker: FakeBroker) -> None:
    running = client.submit(POOL, "slow", value="real")
    assert broker.running.wait(PATIENCE)
    (ref,) = session_on(at_level(0), client.target)._pending
    (path,) = reply_sockets(broker.path.parent)
    delivery = Delivery(ref=ref, json=b'"first"').SerializeToString()
    put(path, delivery, delivery)
    assert running.result(PATIENCE) == "first"
    broker.release()  # and the broker's own answer comes too late
    assert client.call(POOL, "echo", a=1) == {"a": 1}


def test_a_delivery_after_the_deadline_is_ignored(client: Client, broker: FakeBroker) -> None:
    client.call(POOL, "echo")
    with pytest.raises(DeadlineExceeded):
        client.call(POOL, "mute", timeout=0.01)
    (path,) = reply_sockets(broker.path.parent)
    put(path, *(Delivery(ref=call.ref, json=b"1").SerializeToString() for call in broker.calls))
    assert client.call(POOL, "echo", a=1) == {"a": 1}


def test_a_session_has_one_reply_socket_and_removes_it_at_its_end(
    client: Client, broker: FakeBroker, patient_end: None
) -> None:
    client.call(POOL, "echo")
    assert len(reply_sockets(broker.path.parent)) == 1
    client.close()
    assert reply_sockets(broker.path.parent) == []
    client.call(POOL, "echo")
    assert len(reply_sockets(broker.path.parent)) == 1


FORKED = """
import os, sys
from pathlib import Path
from snakepit.pools.client import connect, loop_thread, session
session.GOODBYE = session.END_GRACE = loop_thread.STOP_TIMEOUT = 60  # it is not the bounds that are tested
client = connect(sys.argv[1], connect_timeout=60)
client.call("echo", "echo", a=1)
reply_sockets = lambda: len(list(Path(sys.argv[1]).parent.glob("r-*")))
child = os.fork()
if not child:
    assert client.call("echo", "echo", a=2) == {"a": 2}
    assert reply_sockets() == 2
    client.close()
    sys.exit(0 if reply_sockets() == 1 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert client.call("echo", "echo", a=3) == {"a": 3}
assert reply_sockets() == 1
"""


def test_a_forked_child_has_a_reply_socket_of_its_own_and_leaves_the_parents(broker: FakeBroker) -> None:
    # From Python 3.12 on, a fork beside other threads warns. That it works all the same is what this test shows.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED, broker.address]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert broker.delivered == 3
    assert reply_sockets(broker.path.parent) == []


def test_where_no_reply_socket_can_be_all_answers_come_through_the_broker(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit.pools.client.direct_reply.LONGEST_PATH", 10)
    with connect(broker.address, broker.token, connect_timeout=PATIENCE) as client:
        assert client.call(POOL, "echo", a=1) == {"a": 1}
    assert broker.delivered == 0
    assert not reply_sockets(broker.path.parent)


def test_a_directory_without_the_right_to_write_gives_no_reply_socket(tmp_path: Path) -> None:
    gone = tmp_path / "gone" / "broker.sock"
    for broker in (str(gone), ""):
        reply_socket = DirectReplySocket(broker)
        assert reply_socket.name == ""
        reply_socket.close()


def test_a_signal_handler_that_raises_while_a_delivery_is_awaited_leaves_a_client_that_works(
    client: Client, broker: FakeBroker
) -> None:
    class Rang(Exception):
        pass

    def ring(*_: object) -> None:
        raise Rang

    client.call(POOL, "echo")
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Rang):
            client.call(POOL, "mute")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert client.call(POOL, "echo", a=1) == {"a": 1}


def test_a_killed_client_leaves_its_reply_socket_for_the_broker_to_remove(broker: FakeBroker) -> None:
    """The fake broker does not remove it; the real one does, see tests/process/contract/test_service.py."""
    program = 'client.call("echo", "echo"); print("up", flush=True); sys.stdin.read()'
    command = [
        sys.executable,
        "-c",
        f"import sys; from snakepit.pools.client import connect; client = connect(sys.argv[1]); {program}",
    ]
    with subprocess.Popen([*command, broker.address], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"up\n"
        (path,) = reply_sockets(broker.path.parent)
        child.kill()
    assert path.exists()
    with connect(broker.address, connect_timeout=PATIENCE) as client:  # and the next one has another name
        assert client.call(POOL, "echo", a=1) == {"a": 1}
        assert len(reply_sockets(broker.path.parent)) == 2

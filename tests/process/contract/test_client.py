"""The client against a broker: a fake one, on a real socket with real gRPC, and the pools of `snakepit.testing`.

Both pass the same tests, so that code that was tested with the kit finds the same client in production. Over the
network, the real listener is in front: of the kit's broker, or of the fake one for tests that the kit cannot pass.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import queue
import signal
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.broker.errors import (
    AdapterError,
    BadArguments,
    BadRequest,
    BrokerUnreachable,
    CommandUnknown,
    DeadlineExceeded,
    PoolUnknown,
    ShuttingDown,
    Unauthenticated,
)
from snakepit.pools.broker.status import SweepResult, as_json
from snakepit.pools.client import Answer, Chunk, Client, Log, Progress, connect
from snakepit.pools.client.listening import ListenedCall
from snakepit.pools.client.loop_thread import at_level, event_loop
from snakepit.pools.client.pending import ThreadPending
from snakepit.pools.client.session import session_on
from snakepit.pools.client.streams import WINDOW
from snakepit.pools.wire.broker_pb2 import Reply
from snakepit.workers.process.template_safety import current_frames
from snakepit.workers.transport import DIRECT_REPLY, FAST_PATH, LOOP_OWNER
from snakepit.workers.transport.loop_owner import WAITING
from tests.brokers import PATIENCE
from tests.process.contract.fake_broker import POOL, FakeBroker
from tests.process.contract.kit_broker import KitBroker
from tests.process.contract.network_broker import Network, NetworkBroker

ROOT = Path(__file__).parents[3]
CERTIFICATE = Path(__file__).with_name("localhost.pem")  # for localhost, signed by itself, valid until 2126; tests only


SOCKETS = ("takes calls together", "takes calls one by one", "has results delivered", "has grpclib's public API")
KIT = "runs in the test's process"
NETWORK = "takes TLS and an API key"
over_a_socket = pytest.mark.over_a_socket  # the reason why the kit cannot pass the test


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "broker" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("over_a_socket")
        kit = () if marker else (KIT,)
        network = (NETWORK,) if marker is None or marker.kwargs.get("network", True) else ()
        metafunc.parametrize("broker", [*SOCKETS, *network, *kit], indirect=True)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return Network.make(tmp_path_factory.mktemp("network"))


@pytest.fixture
def broker(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, network: Network
) -> Iterator[FakeBroker | KitBroker]:
    """The public API means the client, which must not need the fast path."""
    started: FakeBroker | KitBroker
    if request.param == NETWORK:
        fake = request.node.get_closest_marker("over_a_socket")
        started = FakeBroker(tmp_path, network=network).start() if fake else NetworkBroker(network).start()
    elif request.param == KIT:
        started = KitBroker(tmp_path).start()
    else:
        takes_calls, delivers = request.param != SOCKETS[1], request.param == SOCKETS[2]
        if request.param == SOCKETS[3]:
            monkeypatch.setenv(FAST_PATH, "0")
        started = FakeBroker(tmp_path, takes_calls=takes_calls, delivers=delivers).start()
    yield started
    started.stop()


@pytest.fixture
def client(broker: FakeBroker | KitBroker) -> Iterator[Client]:
    with connect(broker.address, connect_timeout=PATIENCE, **broker.options) as client:
        yield client


@contextmanager
def nothing_sent() -> Iterator[None]:
    """What is asked for meanwhile goes out at the end, at once."""
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        over.wait(PATIENCE)

    event_loop().loop.call_soon_threadsafe(hold)
    event_loop().ensure_running()
    assert held.wait(PATIENCE)
    try:
        yield
    finally:
        over.set()


def seconds(broker: FakeBroker, answer: Answer) -> tuple[float, float]:
    """How long a call waited and ran: fixed numbers of the fake broker, measured ones of the kit."""
    if not broker.in_process:
        return 0.25, 0.5
    assert min(answer.queued_seconds, answer.run_seconds) >= 0
    return answer.queued_seconds, answer.run_seconds


# One call.


def test_a_call_returns_the_commands_result(client: Client) -> None:
    assert client.call(POOL, "echo", {"a": [1, 2.5, None]}, b="ü") == {"a": [1, 2.5, None], "b": "ü"}


def test_arguments_named_like_options_travel_in_the_dict(client: Client) -> None:
    assert client.call(POOL, "echo", {"timeout": "t", "priority": "p"}) == {"timeout": "t", "priority": "p"}


def test_execute_reports_queue_and_run_time(client: Client, broker: FakeBroker) -> None:
    answer = client.execute(POOL, "echo", a=1)
    assert answer == Answer({"a": 1}, answer.call, answer.worker, *seconds(broker, answer))
    assert answer.call
    assert answer.worker.startswith("echo-")


def test_options_reach_the_broker(client: Client, broker: FakeBroker) -> None:
    client.call(POOL, "echo", timeout=7.5, priority=-3, affinity="ada")
    call = broker.calls[-1]
    assert (call.timeout, call.priority, call.affinity, call.credit) == (7.5, -3, "ada", 0)


def test_bytes_travel_as_they_are_both_ways(client: Client) -> None:
    assert client.call(POOL, "raw", data=b"\x00\xff") == b"\x00\xff"
    assert client.call(POOL, "raw", nested=True) == {"image": b"\x89PNG"}
    assert client.call(POOL, "echo", {"n": 1, "data": bytearray(b"abc"), "none": b""}) == {
        "n": 1,
        "attachments": {"data": 3, "none": 0},
    }


def test_a_large_argument_and_result_pass(client: Client) -> None:
    text = "x" * 3_000_000
    assert client.call(POOL, "echo", text=text) == {"text": text}
    assert client.call(POOL, "raw", data=b"y" * 5_000_000) == b"y" * 5_000_000


def test_progress_and_log_lines_do_not_disturb_a_call(client: Client, broker: FakeBroker) -> None:
    assert client.call(POOL, "noisy") == ([1] if broker.in_process else "done")


@pytest.mark.parametrize("switch", [FAST_PATH, DIRECT_REPLY, LOOP_OWNER])
def test_calls_are_answered_without_each_mechanism(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    monkeypatch.setenv(switch, "0")
    broker = FakeBroker(tmp_path, delivers=True).start()
    try:
        with connect(broker.address, connect_timeout=PATIENCE) as client:
            assert [client.call(POOL, "echo", {"at": at}) for at in range(50)] == [{"at": at} for at in range(50)]
            assert client.submit(POOL, "echo", {"at": 1}).result(PATIENCE) == {"at": 1}
            assert list(client.stream(POOL, "count", {"to": 50})) == list(range(50))
    finally:
        broker.stop()
    assert (broker.delivered == 0) == (switch == DIRECT_REPLY)


@pytest.mark.parametrize("fast_path", ["1", "0"])
def test_calls_travel_through_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast_path: str) -> None:
    monkeypatch.setenv(FAST_PATH, fast_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    context.set_alpn_protocols(["h2"])
    broker = FakeBroker(tmp_path, delivers=True, tls=context).start()
    try:
        trusted = ssl.create_default_context(cafile=str(CERTIFICATE))
        with connect(broker.address, broker.token, tls=trusted, connect_timeout=PATIENCE) as client:
            assert [client.call(POOL, "echo", n=n) for n in range(20)] == [{"n": n} for n in range(20)]
            assert list(client.map(POOL, "echo", ({"n": n} for n in range(500))))[-1] == {"n": 499}
            assert list(client.stream(POOL, "count", {"to": 300})) == list(range(300))
            assert client.call(POOL, "raw", data=b"y" * 2_000_000) == b"y" * 2_000_000
        with connect(f"dns:///{broker.address}", broker.token, tls=trusted, connect_timeout=PATIENCE) as client:
            assert [client.call(POOL, "echo", n=n) for n in range(3)] == [{"n": n} for n in range(3)]
    finally:
        broker.stop()
    assert broker.delivered == 0


# Errors.


def test_the_adapters_exception_comes_with_its_traceback(client: Client, broker: FakeBroker) -> None:
    with pytest.raises(AdapterError, match="ValueError: no") as caught:
        client.call(POOL, "fail")
    assert caught.value.outcome == "failed"
    details = caught.value.details
    assert details["type"] == "ValueError"
    assert details["traceback"].startswith("Traceback ")
    assert "".join(traceback.format_exception_only(caught.value)).endswith(
        f"AdapterError: ValueError: no\nIn the worker:\n{details['traceback'].rstrip()}\n"
    )
    assert caught.value.retry_after == (0.0 if broker.in_process else 1.5)


def test_unknown_pools_and_commands_are_typed_errors(client: Client) -> None:
    with pytest.raises(PoolUnknown):
        client.call("nope", "echo")
    with pytest.raises(CommandUnknown):
        client.call(POOL, "nope")


@over_a_socket("there is no token within a process")
def test_a_wrong_token_is_said(broker: FakeBroker) -> None:
    with connect(broker.address, token="wrong", tls=broker.options.get("tls"), connect_timeout=PATIENCE) as client:
        with pytest.raises(Unauthenticated, match=r"token|API key") as caught:
            client.call(POOL, "echo")
        assert caught.value.outcome == "not_started"
        with pytest.raises(Unauthenticated):
            client.status()


@over_a_socket("there is no token within a process", network=False)
def test_a_missing_token_file_is_named(broker: FakeBroker, client: Client) -> None:
    broker.path.with_name("token").unlink()
    with pytest.raises(Unauthenticated, match=r"token cannot be read from .*token"):
        client.call(POOL, "echo")


def test_no_broker_is_said_with_the_address_and_the_fix(tmp_path: Path) -> None:
    client = connect(str(tmp_path / "broker.sock"), connect_timeout=0.05)
    with pytest.raises(BrokerUnreachable, match=r"broker\.sock.*start it with: snakepit broker") as caught:
        client.call(POOL, "echo")
    assert caught.value.outcome == "not_started"
    with pytest.raises(BrokerUnreachable) as caught:
        client.status()
    assert caught.value.outcome == "not_started"


@over_a_socket("no connection can break")
def test_a_lost_connection_ends_open_calls_with_unknown_outcome(client: Client, broker: FakeBroker) -> None:
    waiting = client.submit(POOL, "slow")
    assert broker.running.wait(PATIENCE)
    with pytest.raises(BrokerUnreachable) as caught:
        client.call(POOL, "drop")
    assert caught.value.outcome == "unknown"
    error = waiting.exception(PATIENCE)
    assert isinstance(error, BrokerUnreachable)
    assert error.outcome == "unknown"
    assert client.call(POOL, "echo", a=1) == {"a": 1}
    assert broker.sessions == 2


def test_a_client_can_close_its_session_and_connect_again(
    client: Client, broker: FakeBroker, patient_end: None
) -> None:
    waiting = client.submit(POOL, "mute")
    assert broker.running.wait(PATIENCE)
    client.close()
    assert "closed by this process" in str(waiting.exception(PATIENCE))
    assert broker.farewells == 1
    assert client.call(POOL, "echo", a=1) == {"a": 1}
    assert broker.sessions == 2


@over_a_socket("the broker ends with the test only")
def test_a_broker_that_ends_the_session_is_reached_again(client: Client) -> None:
    with pytest.raises(BrokerUnreachable, match="going away"):
        client.call(POOL, "quit")
    assert client.call(POOL, "echo", a=1) == {"a": 1}


def test_a_restarted_broker_is_found_with_its_new_token(tmp_path: Path) -> None:
    first = FakeBroker(tmp_path, token="one").start()
    with connect(first.address, connect_timeout=PATIENCE) as client:
        client.call(POOL, "echo")
        first.stop()
        second = FakeBroker(tmp_path, token="two").start()
        try:
            assert client.call(POOL, "echo", a=1) == {"a": 1}
        finally:
            client.close()
            second.stop()


@over_a_socket
@pytest.mark.parametrize("outcome", ["not_started", "unknown"])
def test_the_end_of_a_stopped_broker_says_what_became_of_the_last_calls(
    broker: FakeBroker, client: Client, outcome: str
) -> None:
    ran, late = client.submit(POOL, "slow", value=1), client.submit(POOL, "mute")
    assert broker.running.wait(PATIENCE)
    with pytest.raises(ShuttingDown) as last:
        client.call(POOL, "stop", outcome=outcome)
    assert last.value.outcome == outcome
    assert ran.result(PATIENCE) == 1
    with pytest.raises(ShuttingDown) as missed:
        late.result(PATIENCE)
    assert missed.value.outcome == outcome


def test_a_call_that_meets_a_closed_connection_goes_to_the_new_broker(tmp_path: Path) -> None:
    first = FakeBroker(tmp_path, token="one").start()
    client = connect(first.address, connect_timeout=PATIENCE)
    client.call(POOL, "echo")
    loop_owner, held, go = event_loop(), threading.Event(), threading.Event()
    # The client's loop does not see the end yet.
    loop_owner.loop.call_soon_threadsafe(lambda: (held.set(), go.wait(PATIENCE)))
    loop_owner.ensure_running()
    assert held.wait(PATIENCE)
    first.stop()
    second = FakeBroker(tmp_path, token="two").start()
    try:
        kept, cancelled = client.submit(POOL, "echo", a=1), client.submit(POOL, "mute")
        go.set()
        assert kept.result(PATIENCE) == {"a": 1}
        assert second.running.wait(PATIENCE)
        assert cancelled.cancel()
        assert second.changed.wait(PATIENCE)
        assert client.call(POOL, "echo", a=2) == {"a": 2}
    finally:
        client.close()
        second.stop()


def test_a_call_waits_for_a_broker_that_is_just_starting(tmp_path: Path) -> None:
    broker = FakeBroker(tmp_path)
    client = connect(broker.address, connect_timeout=PATIENCE)
    future = client.submit(POOL, "echo", a=1)
    broker.start()
    try:
        assert future.result(PATIENCE) == {"a": 1}
    finally:
        client.close()
        broker.stop()


# Deadlines and cancelling.

LATE = "did not answer|did not end|deadline passed"  # the fake broker is silent, the kit's answers


def test_a_silent_broker_does_not_hold_a_call_beyond_its_deadline(client: Client, broker: FakeBroker) -> None:
    with pytest.raises(DeadlineExceeded, match=LATE):
        client.call(POOL, "mute", timeout=0.05)
    assert broker.changed.wait(PATIENCE)
    assert broker.cancelled == ["mute"]


def test_a_submitted_call_ends_at_its_deadline_too(client: Client) -> None:
    assert isinstance(client.submit(POOL, "mute", timeout=0.05).exception(PATIENCE), DeadlineExceeded)


def test_time_that_is_over_is_not_spent_on_sending(client: Client, broker: FakeBroker) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        client.call(POOL, "echo", timeout=-0.1)
    assert caught.value.outcome == "not_started"
    assert not broker.calls


@pytest.mark.parametrize("calls_before", [0, 1])
def test_an_interrupt_cancels_the_call_that_waits(client: Client, broker: FakeBroker, calls_before: int) -> None:
    for _ in range(calls_before):  # the first one connects
        client.call(POOL, "echo")
    # In the loop, or on its queue, if the backup thread did not let go of the loop in time.
    waits = *WAITING, ThreadPending._await_item.__code__
    main, ended = threading.get_ident(), threading.Event()

    def interrupt() -> None:
        broker.running.wait(PATIENCE)
        # The signal comes while the thread waits, never in the middle of a step.
        while current_frames()[main].f_code not in waits and not ended.is_set():
            time.sleep(0)
        os.kill(os.getpid(), signal.SIGINT)

    def call() -> None:
        try:
            client.call(POOL, "mute", timeout=PATIENCE)
        finally:
            ended.set()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        call()
    thread.join(PATIENCE)
    assert broker.changed.wait(PATIENCE)
    assert broker.cancelled == ["mute"]


def test_an_interrupt_in_the_middle_of_a_frame_gives_the_connection_up(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is unknown; the next call has a new one."""
    client.call(POOL, "echo")
    session = session_on(at_level(0), client.target)
    deliver = ThreadPending.deliver

    def interrupted(pending: ThreadPending, kind: str, reply: Reply) -> None:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt  # as a signal's handler would, which runs on no other thread
        deliver(pending, kind, reply)

    def call_until_this_thread_reads() -> None:
        for _ in range(10_000):  # on a busy machine the keeper reads some replies
            client.call(POOL, "echo")

    with monkeypatch.context() as patched:
        patched.setattr(ThreadPending, "deliver", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call_until_this_thread_reads()
    assert client.call(POOL, "echo", a=1) == {"a": 1}
    assert session.lost is not None
    assert "interrupted by KeyboardInterrupt" in str(session.lost)


# Streams.


def test_a_stream_yields_chunks_in_order(client: Client) -> None:
    stream = client.stream(POOL, "count", {"to": 100})
    assert list(stream) == list(range(100))
    assert stream.answer is not None
    assert stream.answer.worker.startswith("echo-")
    assert list(stream) == []


def test_a_plain_command_is_a_stream_of_one(client: Client) -> None:
    assert list(client.stream(POOL, "echo", {"a": 1})) == [{"a": 1}]


def test_a_slow_reader_slows_the_generator_down(client: Client, broker: FakeBroker) -> None:
    with client.stream(POOL, "count", {"to": 10_000}) as stream:
        for read in range(1, 41):
            next(stream)
            client.call(POOL, "echo")  # comes after all grants so far
            assert broker.ask(lambda: broker.sent) <= read + WINDOW
    assert broker.changed.wait(PATIENCE)
    assert broker.cancelled == ["count"]


def test_leaving_a_stream_early_cancels_the_call(client: Client, broker: FakeBroker) -> None:
    for _ in client.stream(POOL, "count", {"to": 10_000}):
        break
    gc.collect()
    assert broker.changed.wait(PATIENCE)
    assert broker.cancelled == ["count"]
    assert client.call(POOL, "echo", a=1) == {"a": 1}


def test_a_stream_that_another_thread_closes_ends_for_the_thread_that_waits(client: Client) -> None:
    stream = client.stream(POOL, "mute", timeout=3600)
    waits = Future[list[Any]]()
    threading.Thread(target=lambda: waits.set_result(list(stream)), daemon=True).start()
    end = time.monotonic() + PATIENCE
    while not stream._pending.waits:
        assert time.monotonic() < end, "the thread does not read"
    with pytest.raises(BadRequest, match="Another thread or task reads this stream"):
        next(stream)
    stream.close()
    assert waits.result(PATIENCE) == []
    assert client.call(POOL, "echo", a=1) == {"a": 1}


def test_a_stream_that_another_task_closes_ends_for_the_task_that_waits(client: Client) -> None:
    async def main() -> list[Any]:
        stream = client.astream(POOL, "mute", timeout=3600)

        async def read() -> list[Any]:
            return [chunk async for chunk in stream]

        waits = asyncio.create_task(read())
        while stream._sent is None:  # the task sends it, and waits
            await asyncio.sleep(0)
        with pytest.raises(BadRequest, match="Another thread or task reads this stream"):
            await anext(stream)
        await stream.aclose()
        return await asyncio.wait_for(waits, PATIENCE)

    assert asyncio.run(main()) == []


def test_events_show_everything_and_end_with_the_answer(client: Client, broker: FakeBroker) -> None:
    *events, last = client.events(POOL, "noisy")
    assert events == [Progress(0.5, "half"), Log("a line"), Chunk(1)]
    assert isinstance(last, Answer)
    assert last.value == (None if broker.in_process else "done")  # the chunks of a generator are its result


def test_an_error_ends_a_stream(client: Client) -> None:
    stream = client.stream(POOL, "fail")
    with pytest.raises(AdapterError):
        next(stream)
    assert list(stream) == []


# Calls whose replies go to a function.


class Listener:
    """Reads calls of `listen` on the test's own thread, as the runner of jobs does."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def call(self, command: str, arguments: Any = None, timeout: float | None = None) -> ListenedCall:
        return self.client.listen(POOL, command, arguments, self.inbox.put, timeout=timeout)

    def next(self, call: ListenedCall) -> Any:
        while (event := call.read(self.inbox.get(timeout=PATIENCE))) is None:
            pass
        return event


def test_a_listener_gets_every_event_and_the_answer_last(client: Client, broker: FakeBroker) -> None:
    listener = Listener(client)
    call = listener.call("noisy")
    *events, last = [listener.next(call) for _ in range(4)]
    assert events == [Progress(0.5, "half"), Log("a line"), Chunk(1)]
    assert isinstance(last, Answer)
    assert last.value == (None if broker.in_process else "done")


def test_a_listener_gets_errors_of_the_command_and_of_a_silent_broker(client: Client, broker: FakeBroker) -> None:
    listener = Listener(client)
    for call, kind in ((listener.call("fail"), AdapterError), (listener.call("mute", timeout=0.05), DeadlineExceeded)):
        with pytest.raises(kind):
            listener.next(call)
    assert broker.changed.wait(PATIENCE)
    assert broker.cancelled == ["mute"]


def test_a_listener_that_reads_slowly_slows_the_generator_down(client: Client, broker: FakeBroker) -> None:
    listener = Listener(client)
    call = listener.call("count", {"to": 10_000})
    for read in range(1, 41):
        listener.next(call)
        client.call(POOL, "echo")  # comes after all grants so far
        assert broker.ask(lambda: broker.sent) <= read + WINDOW
    call.close()
    assert broker.changed.wait(PATIENCE)
    assert broker.cancelled == ["count"]


def test_a_closed_call_is_cancelled_and_its_listener_gets_nothing_more(client: Client, broker: FakeBroker) -> None:
    listener = Listener(client)
    call = listener.call("mute", timeout=60)
    assert broker.running.wait(PATIENCE)
    call.close()
    assert broker.changed.wait(PATIENCE)
    assert broker.cancelled == ["mute"]
    client.close()  # ends what still waits
    assert listener.inbox.empty()


def test_a_lost_connection_ends_a_listened_call_with_unknown_outcome(client: Client, broker: FakeBroker) -> None:
    listener = Listener(client)
    call = listener.call("mute")
    assert broker.running.wait(PATIENCE)
    client.close()
    with pytest.raises(BrokerUnreachable) as caught:
        listener.next(call)
    assert caught.value.outcome == "unknown"


# Event loops.


async def test_calls_work_from_an_event_loop(client: Client) -> None:
    answers = await asyncio.gather(*(client.acall(POOL, "echo", n=n) for n in range(200)))
    assert answers == [{"n": n} for n in range(200)]
    assert (await client.aexecute(POOL, "echo", n=1)).worker.startswith("echo-")
    with pytest.raises(AdapterError):
        await client.acall(POOL, "fail")


async def test_streams_work_from_an_event_loop(client: Client, broker: FakeBroker) -> None:
    assert [chunk async for chunk in client.astream(POOL, "count", {"to": 50})] == list(range(50))
    events = [event async for event in client.aevents(POOL, "noisy")]
    assert [type(event) for event in events] == [Progress, Log, Chunk, Answer]
    async with client.astream(POOL, "count", {"to": 10_000}) as stream:
        assert await anext(stream) == 0
    assert await asyncio.to_thread(broker.changed.wait, PATIENCE)
    assert broker.cancelled == ["count"]


async def test_cancelling_the_task_cancels_the_call(client: Client, broker: FakeBroker) -> None:
    task = asyncio.create_task(client.acall(POOL, "mute"))
    assert await asyncio.to_thread(broker.running.wait, PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(broker.changed.wait, PATIENCE)
    assert broker.cancelled == ["mute"]


async def test_an_event_loop_is_not_held_beyond_the_deadline(client: Client) -> None:
    with pytest.raises(DeadlineExceeded, match=LATE):
        await client.acall(POOL, "mute", timeout=0.05)


def test_many_threads_and_loops_share_one_connection(client: Client, broker: FakeBroker) -> None:
    def use(number: int) -> bool:
        async def several() -> list[object]:
            return await asyncio.gather(*(client.acall(POOL, "echo", n=n) for n in range(25)))

        alone = [client.call(POOL, "echo", n=number) for _ in range(25)]
        return alone == [{"n": number}] * 25 and asyncio.run(several()) == [{"n": n} for n in range(25)]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(use, range(8)))
    assert broker.sessions == 1


# Many calls.


@over_a_socket("counts messages on the wire")
def test_what_waits_goes_out_in_one_message(client: Client, broker: FakeBroker) -> None:
    client.call(POOL, "echo")
    before = broker.messages
    with nothing_sent():
        futures = [client.submit(POOL, "echo", n=n) for n in range(1000)]
    assert [future.result(PATIENCE)["n"] for future in futures] == list(range(1000))
    assert broker.messages - before == 1
    assert [answer["n"] for answer in client.map(POOL, "echo", ({"n": n} for n in range(1000)))] == list(range(1000))


@over_a_socket("looks at messages on the wire")
def test_calls_that_are_alike_travel_together_where_the_broker_takes_them_so(
    client: Client, broker: FakeBroker
) -> None:
    client.call(POOL, "echo")
    with nothing_sent():
        futures = [client.submit(POOL, "echo", n=n) for n in range(100)]
    assert [future.result(PATIENCE) for future in futures] == [{"n": n} for n in range(100)]
    assert broker.batches == ([100] if broker.takes_calls else [])
    assert [json.loads(call.arguments)["n"] for call in broker.calls[1:]] == list(range(100))


@over_a_socket("looks at messages on the wire")
def test_only_calls_that_are_alike_travel_together_and_each_keeps_what_it_asked_for(
    client: Client, broker: FakeBroker
) -> None:
    client.call(POOL, "echo")
    asking: list[tuple[str, dict[str, Any]]] = [
        ("echo", {}),
        ("echo", {}),
        ("fail", {}),
        ("echo", {"timeout": 9.0}),
        ("echo", {"priority": 5}),
        ("echo", {"affinity": "ada"}),
    ]
    with nothing_sent():
        futures = [client.submit(POOL, name, {"n": n}, **more) for n, (name, more) in enumerate(asking * 20)]
    for number, future in enumerate(futures):
        assert isinstance(future.exception(PATIENCE), AdapterError if number % 6 == 2 else type(None))
    asked = [(call.command, call.timeout, call.priority, call.affinity) for call in broker.calls[1:]]
    kinds = [("echo", 0.0, 0, "")] * 2 + [("fail", 0.0, 0, ""), ("echo", 9.0, 0, "")]
    kinds += [("echo", 0.0, 5, ""), ("echo", 0.0, 0, "ada")]
    assert asked == kinds * 20
    assert [json.loads(call.arguments)["n"] for call in broker.calls[1:]] == list(range(120))
    assert broker.batches == ([2] * 20 if broker.takes_calls else [])


@over_a_socket("looks at messages on the wire")
async def test_calls_whose_events_are_read_travel_together_and_each_reads_its_own(
    client: Client, broker: FakeBroker
) -> None:
    async def read(command: str, **arguments: Any) -> list[Any]:
        return [event async for event in client.aevents(POOL, command, arguments)]

    await client.acall(POOL, "echo")
    with nothing_sent():
        quiet = [asyncio.ensure_future(read("echo", n=n)) for n in range(40)]
        chatty = [asyncio.ensure_future(read("noisy", n=n)) for n in range(3)]
        streams = [asyncio.ensure_future(read("count", to=200)) for _ in range(2)]
        await asyncio.sleep(0)  # each makes its call
    assert [[event.value for event in await one] for one in quiet] == [[{"n": n}] for n in range(40)]
    for one in chatty:
        assert [type(event) for event in await one] == [Progress, Log, Chunk, Answer]
    for one in streams:
        *chunks, last = await one
        assert ([chunk.value for chunk in chunks], last.value) == (list(range(200)), None)
    assert broker.batches == ([40, 3, 2] if broker.takes_calls else [])
    assert [chunk async for chunk in client.astream(POOL, "echo", n=1)] == [{"n": 1}]


def test_calls_that_travelled_together_tell_each_where_its_time_went(client: Client, broker: FakeBroker) -> None:
    async def all_at_once() -> list[Answer]:
        return await asyncio.gather(*(client.aexecute(POOL, "echo", n=n) for n in range(50)))

    client.call(POOL, "echo")
    answers = asyncio.run(all_at_once())
    assert [answer.value for answer in answers] == [{"n": n} for n in range(50)]
    assert {(answer.queued_seconds, answer.run_seconds) for answer in answers} == {
        seconds(broker, answer) for answer in answers
    }
    assert len({answer.call for answer in answers}) == 50


def test_one_of_many_that_travelled_together_can_be_cancelled(client: Client, broker: FakeBroker) -> None:
    client.call(POOL, "echo")
    futures = [client.submit(POOL, "slow", value=n) for n in range(40)]
    assert futures[7].cancel()
    if not broker.in_process:  # there it waits in a worker and has not begun
        assert broker.changed.wait(PATIENCE)
        assert broker.cancelled == ["slow"]
    broker.release()
    assert [future.result(PATIENCE) for n, future in enumerate(futures) if n != 7] == [n for n in range(40) if n != 7]


def test_bytes_travel_alone_among_calls_that_travel_together(client: Client) -> None:
    client.call(POOL, "echo")
    futures = [client.submit(POOL, "echo", n=n, **({"data": b"abc"} if n % 3 else {})) for n in range(30)]
    found = [future.result(PATIENCE) for future in futures]
    assert found == [{"n": n, **({"attachments": {"data": 3}} if n % 3 else {})} for n in range(30)]


@pytest.mark.parametrize("name", ["pool", "command", "argument"])
def test_names_that_are_no_unicode_are_refused_before_they_are_sent(client: Client, name: str) -> None:
    bad = "a\ud800"
    given = {"pool": POOL, "command": "echo", "argument": "data", name: bad}
    with pytest.raises(BadRequest, match="not Unicode"):
        client.call(given["pool"], given["command"], {given["argument"]: b"1"})
    assert client.call(POOL, "echo", a=1) == {"a": 1}


def test_futures_complete_and_can_be_cancelled(client: Client, broker: FakeBroker) -> None:
    done, running = client.submit(POOL, "echo", a=1), client.submit(POOL, "mute")
    assert done.result(PATIENCE) == {"a": 1}
    assert broker.running.wait(PATIENCE)
    assert not done.cancel()
    assert running.cancel()
    assert running.cancel()
    with pytest.raises(CancelledError):
        running.result(PATIENCE)
    assert wait([done, running], PATIENCE).not_done == set()
    assert broker.changed.wait(PATIENCE)
    assert broker.cancelled == ["mute"]


def test_map_stops_at_an_error_and_cancels_what_is_in_flight(client: Client, broker: FakeBroker) -> None:
    items = iter([{"a": 1}, {"bad": object()}, {"a": 3}])
    results = client.map(POOL, "echo", items, window=1)
    assert next(results) == {"a": 1}
    with pytest.raises(Exception, match="bad: "):
        next(results)
    assert next(items) == {"a": 3}


def test_map_keeps_no_more_than_its_window_in_flight(client: Client, broker: FakeBroker) -> None:
    taken = 0

    def items() -> Iterator[dict[str, int]]:
        nonlocal taken
        while True:
            taken += 1
            yield {"n": taken}

    results = client.map(POOL, "echo", items(), window=5)
    for read in range(1, 50):
        next(results)
        assert taken <= read + 5
    results.close()  # type: ignore[attr-defined]


def test_a_map_that_is_closed_cancels_the_rest(client: Client, broker: FakeBroker) -> None:
    results = client.map(POOL, "slow", [{"value": 1}] * 3, window=3)
    thread = threading.Timer(0, lambda: (broker.running.wait(PATIENCE), broker.release()))
    thread.start()
    assert next(results) == 1
    thread.join()
    mute = client.map(POOL, "echo", iter([{}] * 9), window=9)
    next(mute)
    mute.close()  # type: ignore[attr-defined]
    results.close()  # type: ignore[attr-defined]
    assert client.call(POOL, "echo", a=1) == {"a": 1}


def test_arguments_that_cannot_be_sent_fail_in_their_turn(client: Client) -> None:
    items = [{"n": 0}, {"n": 1}, {"n": object()}, {"n": 3}]
    first, second, third, fourth = client.map(POOL, "echo", items, return_errors=True)
    assert (first, second, fourth) == ({"n": 0}, {"n": 1}, {"n": 3})
    assert isinstance(third, BadArguments)
    results = client.map(POOL, "echo", items)
    assert [next(results), next(results)] == [{"n": 0}, {"n": 1}]
    with pytest.raises(BadArguments, match="n: is a object"):
        next(results)
    with pytest.raises(TypeError):
        client.map(POOL, "echo", 5)  # type: ignore[arg-type]


def test_map_can_yield_errors_instead_of_raising(client: Client) -> None:
    first, second = client.map(POOL, "fail", [{}, {}], return_errors=True)
    assert isinstance(first, AdapterError)
    assert isinstance(second, AdapterError)


def test_a_pool_is_an_executor(client: Client) -> None:
    with client.pool(POOL) as pool:
        futures = [pool.submit("echo", {"n": n}) for n in range(20)]
    assert [future.result(0)["n"] for future in futures] == list(range(20))
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit("echo")
    assert list(client.pool(POOL).map("echo", [{"a": 1}])) == [{"a": 1}]


async def test_a_pool_serves_run_in_executor(client: Client) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(False)  # in debug mode asyncio wants a function here, other executors or not
    assert await loop.run_in_executor(client.pool(POOL), "echo", {"a": 1}) == {"a": 1}  # type: ignore[arg-type]


# The broker itself.


def test_status_has_the_published_shape(client: Client, broker: FakeBroker) -> None:
    status = client.status()
    shown = as_json(status)
    assert list(shown) == ["node", "pools", "workers"]
    names = {"name", "profile", "state", "size", "ready", "busy", "slots", "free", "waiting"}
    assert names <= set(shown["pools"][0])
    assert (status.pools[0].finished, type(status.pools[0].finished)) == (0 if broker.in_process else 7, int)
    names = {"id", "pool", "pid", "state", "load", "capacity", "served", "memory_mb", "gil"}
    assert names <= set(shown["workers"][0])
    assert (status.workers[0].due_in, status.workers[0].memory_mb) == (None, -1.0 if broker.in_process else 12.5)


@over_a_socket("the fake broker's answers are written in the test")
async def test_questions_and_orders_have_async_twins(client: Client) -> None:
    assert (await client.astatus(POOL)).node.name == "fake"
    assert (await client.acommands(POOL))[0].name == "echo"
    assert (await client.asweep("test", 5)).workers == 1
    assert await client.aapply() == 1
    assert await client.arecycle(POOL, actor="me", reason="why") == 1
    await client.adrain(actor="me", reason="why")
    assert (await client.astatus()).node.draining
    await client.aresume(actor="me")
    assert not (await client.astatus()).node.draining
    assert (await client.aplan(POOL, "echo-9")).workers[1].id == "echo-9"
    assert (await client.adump("echo-1")).pid == 1
    assert await client.ametrics() == "snakepit_up 1\n"


@over_a_socket("the fake broker's answers are written in the test")
def test_commands_come_with_their_schema(client: Client) -> None:
    (command,) = client.commands(POOL)
    assert (command.name, command.summary, command.arguments) == ("echo", "Say it again.", {"type": "object"})
    assert as_json(command)["schema"] == {"type": "object"}


@over_a_socket("the fake broker's answers are written in the test")
def test_orders_and_forecasts_are_answered(client: Client) -> None:
    assert client.sweep("test", 5) == SweepResult(pools=1, workers=1, planned=0)
    assert client.apply() == 1
    assert client.recycle(POOL) == 1
    client.drain(actor="me", reason="why")
    assert client.status().node.draining
    client.resume()
    assert not client.status().node.draining
    plan = client.plan(POOL)
    assert (plan.pool, plan.at_once) == (POOL, 1)
    assert [one.seconds_until_ttl for one in plan.workers] == [0.0, None]
    assert [one.seconds_until_successor for one in plan.workers] == [None, None]
    dump = client.dump("echo-1", actor="me", reason="why")
    assert [(one.thread, len(one.frames), one.note) for one in dump.threads] == [
        (1, 2, ""),
        (2, 0, "a thread of a C library"),
    ]
    assert client.metrics() == "snakepit_up 1\n"


def test_errors_of_questions_are_typed(client: Client) -> None:
    with pytest.raises(PoolUnknown, match=r"[Nn]o pool .?nope") as caught:
        client.status("nope")
    assert caught.value.outcome == "not_started"


# Fork and the end of the process.


@over_a_socket("threads do not survive a fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_its_own_connection_and_leaves_the_parents_alone(client: Client, broker: FakeBroker) -> None:
    running = client.submit(POOL, "slow", value="parent")
    stream = client.stream(POOL, "count", {"to": 10_000})
    assert next(stream) == 0
    assert broker.running.wait(PATIENCE)
    child = os.fork()
    if child == 0:  # pragma: no cover
        good = False
        try:
            good = client.call(POOL, "echo", who="child") == {"who": "child"}
            try:
                list(stream)
                good = False
            except BrokerUnreachable as error:
                good = good and "forked" in str(error)
            del stream
            gc.collect()
            client.close()
        finally:
            os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    broker.release()
    assert running.result(PATIENCE) == "parent"
    assert [next(stream) for _ in range(50)] == list(range(1, 51))
    stream.close()
    assert client.call(POOL, "echo", a=1) == {"a": 1}
    assert broker.sessions == 2


CHILD = """
import os, sys, warnings
from snakepit.pools.client import connect, loop_thread, session
session.GOODBYE = session.END_GRACE = loop_thread.STOP_TIMEOUT = 60  # it is not the bounds that are tested
client = connect(sys.argv[1], connect_timeout=60)
client.call("echo", "echo", a=1)
waiting = client.submit("echo", "mute")
warnings.filterwarnings("ignore", category=DeprecationWarning)
child = os.fork()
assert client.call("echo", "echo", a=2) == {"a": 2}
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not waiting.done()
"""


@over_a_socket("the calls come from another process")
def test_parent_and_forked_child_end_without_a_word(broker: FakeBroker) -> None:
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", CHILD, broker.address]
    environment = {**os.environ, **(broker.network.environment() if broker.network else {})}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    # In the development mode, asyncio reports each step that takes a tenth of a second, as on a busy machine.
    said = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert (done.returncode, done.stdout, said) == (0, "", [])

"""Exceptions of signal handlers, calls within calls, and calls at the end of the process: the client stays usable."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from snakepit.pools.broker.errors import BadRequest, BrokerError, BrokerUnreachable
from snakepit.pools.client import Client, connect, loop_thread
from snakepit.pools.client.loop_thread import event_loop, run_step
from tests.process.contract.fake_broker import POOL, FakeBroker
from tests.process.contract.foreign_files import KINDS

ROOT = Path(__file__).parents[3]
TRACED = ("pools/client/", "workers/transport/", "asyncio/", "selectors.py")
DEADLINE = 60.0  # seconds; a client that works needs some milliseconds
STEP = int(os.environ.get("STEP", "17"))  # of the instructions; `make interrupts` interrupts at each of them
SPARE = 10  # descriptors that may be open for other reasons
ROUNDS = 4_000 // STEP  # of the tests with a real signal
END = 60_000

# An interrupt may leave a coroutine half-run, or come in a finalizer: Python then reports what it drops.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


class Interrupt(Exception):
    """A signal handler raises it, as in the idiom of a timeout by SIGALRM."""


INTERRUPTS: list[type[BaseException]] = [Interrupt, TimeoutError, KeyboardInterrupt]


class Countdown:
    """Raises at the n-th instruction of the client on this thread."""

    def __init__(self, left: int, kind: type[BaseException] = Interrupt) -> None:
        self.left, self.kind = left, kind
        self.raised = False

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if not any(part in frame.f_code.co_filename for part in TRACED):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.left -= 1
            if self.left <= 0 and not self.raised:
                self.raised = True
                raise self.kind
        return self.trace

    def run(self, work: Callable[[], object]) -> None:
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            work()
        except (self.kind, BrokerUnreachable):
            pass
        finally:
            sys.settrace(before)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def until(question: Callable[[], bool]) -> None:
    """Wait for what other threads do a little later, such as the broker, which is in this process, too."""
    end = time.monotonic() + DEADLINE
    while not question():
        assert time.monotonic() < end
        time.sleep(0.001)


def wait_for_the_end_of_other_loops() -> None:
    """The background thread of a loop that was given up ends by itself."""
    for loop in loop_thread._alive.copy() - set(loop_thread.all_loops()):
        assert loop.thread is not None
        loop.thread.join(DEADLINE)
        assert not loop.thread.is_alive()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[FakeBroker]:
    broker = FakeBroker(tmp_path, delivers=True).start()
    yield broker
    broker.stop()


@pytest.fixture
def client(broker: FakeBroker) -> Iterator[Client]:
    with connect(broker.address, connect_timeout=DEADLINE) as client:
        yield client
    gc.collect()  # what interrupts left behind is reported here and in no later test


def call(client: Client) -> None:
    client.call(POOL, "echo", {"n": 0}, timeout=DEADLINE)


def stream(client: Client) -> None:
    for _ in client.stream(POOL, "count", {"to": 3}, timeout=DEADLINE):
        pass


def submit(client: Client) -> None:
    client.submit(POOL, "echo", {"n": 0}, timeout=DEADLINE).result(DEADLINE)


def ask(client: Client) -> None:
    client.status()


def reconnect(client: Client) -> None:
    client.close()
    client.call(POOL, "echo", {"n": 0}, timeout=DEADLINE)


@pytest.mark.parametrize("work", [call, stream, submit, ask, reconnect])
def test_a_call_that_is_interrupted_at_any_instruction_leaves_a_client_that_works(
    client: Client, work: Callable[[Client], None]
) -> None:
    call(client)
    before = open_descriptors()
    for at in range(1, END, STEP):
        countdown = Countdown(at, INTERRUPTS[at % len(INTERRUPTS)])
        countdown.run(lambda: work(client))
        assert client.call(POOL, "echo", {"at": at}, timeout=DEADLINE) == {"at": at}
        if not countdown.raised:
            break
    else:
        pytest.fail("the work has more instructions than were tried")
    wait_for_the_end_of_other_loops()
    until(lambda: open_descriptors() < before + SPARE)


@pytest.mark.parametrize("interval", [0.0, 0.0001], ids=["once", "again and again"])
def test_calls_that_a_timer_interrupts_end_at_once_and_calls_of_other_threads_end_typed(
    client: Client, interval: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`interval`: the signal comes again, also while the client handles the first one."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # it would be interrupted, too
    call(client)
    before, seen, over = open_descriptors(), set[object](), threading.Event()

    def call_on() -> None:
        while not over.is_set():
            try:
                call(client)
            except BrokerError as error:
                seen.add(error.code)
            except BaseException as error:
                seen.add(repr(error))

    others = [threading.Thread(target=call_on) for _ in range(2)]
    with timer() as arm:
        for other in others:
            other.start()
        for number in range(ROUNDS):
            interrupted_call(client, lambda number=number: arm(1e-6 + number % 97 * 8e-6, interval), arm)
            call_until_it_is_answered(client, number)
        over.set()
    for other in others:
        other.join(DEADLINE)
        assert not other.is_alive()
    assert seen <= {"broker_unreachable"}
    wait_for_the_end_of_other_loops()
    until(lambda: open_descriptors() < before + SPARE)


@contextmanager
def timer() -> Iterator[Callable[..., None]]:
    """Yield a function that arms the timer of SIGALRM (delay, interval) or disarms it (no argument)."""
    armed = False

    def handle(number: int, frame: FrameType | None) -> None:
        if armed:
            raise Interrupt

    def arm(delay: float = 0.0, interval: float = 0.0) -> None:
        nonlocal armed
        armed = delay > 0
        signal.setitimer(signal.ITIMER_REAL, delay, interval)

    before = signal.signal(signal.SIGALRM, handle)
    try:
        yield arm
    finally:
        arm()
        signal.signal(signal.SIGALRM, before)


def interrupted_call(client: Client, begin: Callable[[], None], end: Callable[[], None]) -> None:
    try:  # a signal may come between any two statements: the outer ones catch it there
        try:
            try:
                begin()
                call(client)
            finally:
                end()
        finally:
            end()
    except (Interrupt, BrokerUnreachable):
        end()


def call_until_it_is_answered(client: Client, number: int) -> None:
    """Another thread's call may have lost the connection at this moment."""
    for _ in range(3):
        with suppress(BrokerUnreachable):
            assert client.call(POOL, "echo", {"n": number}, timeout=DEADLINE) == {"n": number}
            return
    pytest.fail("three calls, one after the other, were not answered")


def test_calls_of_other_threads_end_typed_when_an_interrupt_gives_the_connection_up(client: Client) -> None:
    call(client)
    waiting = client.submit(POOL, "mute")
    for at in range(1, END, STEP):
        Countdown(at).run(lambda: call(client))
        if waiting.done():
            break
    error = waiting.exception(DEADLINE)
    assert isinstance(error, BrokerUnreachable)
    assert error.outcome in ("unknown", "not_started")  # it may not have left yet
    call(client)


@pytest.mark.parametrize("failure", [SystemExit, KeyboardInterrupt])
def test_the_end_of_the_backup_thread_ends_its_calls_typed_and_the_next_call_works(
    client: Client, failure: type[BaseException]
) -> None:
    waiting = client.submit(POOL, "mute")

    def fail() -> None:
        raise failure

    owner = event_loop()
    owner.loop.call_soon_threadsafe(fail)
    owner.ensure_running()
    error = waiting.exception(DEADLINE)
    assert isinstance(error, BrokerUnreachable)
    assert error.outcome in ("unknown", "not_started")
    call(client)
    assert event_loop() is not owner


def in_a_signal_handler(client: Client, broker: FakeBroker, work: Callable[[], object]) -> object:
    """Return what `work` returns, or its error, in a signal handler while this thread waits in a call."""
    call(client)
    seen: list[object] = []

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            seen.append(work())
        except Exception as error:
            seen.append(error)
        broker.release()

    def interrupt() -> None:
        broker.running.wait(DEADLINE)
        signal.pthread_kill(main, signal.SIGUSR1)

    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, handle)
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        assert client.call(POOL, "slow", {"value": 5}, timeout=DEADLINE) == 5
        thread.join(DEADLINE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    call(client)
    (answer,) = seen
    return answer


def test_a_signal_handler_that_calls_gets_its_answer(client: Client, broker: FakeBroker) -> None:
    def work() -> object:
        chunks = list(client.stream(POOL, "count", {"to": 3}, timeout=DEADLINE))
        submitted = client.submit(POOL, "echo", {"n": 2}, timeout=DEADLINE).result(DEADLINE)
        return client.call(POOL, "echo", {"n": 1}, timeout=DEADLINE), chunks, submitted, len(client.status().pools)

    answer = in_a_signal_handler(client, broker, work)
    assert answer == ({"n": 1}, [0, 1, 2], {"n": 2}, len(client.status().pools))


def test_reading_a_stream_inside_a_call_that_runs_its_loop_is_one_typed_error(client: Client) -> None:
    waits = client.stream(POOL, "mute", timeout=DEADLINE)
    with pytest.raises(BadRequest, match="call later, or call from another thread"):
        run_step(loop_thread.at_level(0), lambda: next(waits))
    call(client)


def test_closed_coroutines_and_cancelled_tasks_leave_nothing_behind(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        for turns in range(12):
            task = asyncio.create_task(client.acall(POOL, "echo", {"n": turns}, timeout=DEADLINE))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            stream = client.astream(POOL, "mute")
            for waits in (client.acall(POOL, "mute"), client.astatus(), stream.__anext__()):
                waits.send(None)
                waits.close()
            assert await client.acall(POOL, "echo", {"n": turns}, timeout=DEADLINE) == {"n": turns}
            assert (await client.astatus()).pools

    asyncio.run(main())
    client.status()
    gc.collect()
    loop = loop_thread.at_level(0)
    until(lambda: not any(session._pending for session in loop.open_sessions.copy()))  # an earlier test's ends later
    assert [record for record in caplog.records if record.name == "asyncio" and record.levelname == "ERROR"] == []


def test_a_call_inside_a_running_event_loop_gets_its_answer(client: Client) -> None:
    async def main() -> Any:
        return [client.call(POOL, "echo", {"n": n}, timeout=DEADLINE) for n in range(3)]

    assert asyncio.run(main()) == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_finalizer_that_calls_inside_a_call_gets_its_answer(client: Client, broker: FakeBroker) -> None:
    class Last:
        def __del__(self) -> None:
            answers.append(client.call(POOL, "echo", {"n": 3}, timeout=DEADLINE))

    answers: list[object] = []
    waits = [Last()]
    in_a_signal_handler(client, broker, waits.clear)
    assert answers == [{"n": 3}]


def test_a_callback_of_a_future_that_calls_gets_its_answer(client: Client) -> None:
    """It runs on the thread that runs the loop, which the call must not wait for."""
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()
    future = client.submit(POOL, "echo", {"n": 1}, timeout=DEADLINE)
    future.add_done_callback(lambda _: answers.put(client.call(POOL, "echo", {"n": 2}, timeout=DEADLINE)))
    assert answers.get(timeout=DEADLINE) == {"n": 2}


LAST_CALL = """
import os, sys
from snakepit.pools.broker.errors import BrokerUnreachable
from snakepit.pools.client import connect, loop_thread, session
session.GOODBYE = session.END_GRACE = loop_thread.STOP_TIMEOUT = 60  # it is not the bounds that are tested

class Last:
    def __init__(self):
        self.client = connect(sys.argv[1], connect_timeout=60)
        if len(sys.argv) > 2:
            self.client.call("echo", "echo", a=1)
    def __del__(self, BrokerUnreachable=BrokerUnreachable, write=os.write):
        for ask in (lambda: self.client.call("echo", "echo", a=1), self.client.status):
            try:
                ask()
            except BrokerUnreachable as error:
                write(1, f"{error.outcome} ".encode())

last = Last()
"""


@pytest.mark.parametrize("called_before", [[], ["called"]])
def test_a_call_at_the_shutdown_of_the_interpreter_is_a_typed_error(
    broker: FakeBroker, called_before: list[str]
) -> None:
    command = [sys.executable, "-X", "dev", "-c", LAST_CALL, broker.address, *called_before]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    # In the development mode, asyncio reports each step that takes a tenth of a second, as on a busy machine.
    said = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert (done.returncode, done.stdout, said) == (0, "not_started not_started ", [])


CLOSES_ALL = """
import os, sys, time
from snakepit.pools.broker.errors import BrokerUnreachable
from snakepit.pools.client import connect

client = connect(sys.argv[1], connect_timeout=60)
client.call("echo", "echo", a=1)
time.sleep(float(sys.argv[2]))  # the background thread then waits on the descriptors
os.closerange(3, 256)
for _ in range(4):
    try:
        print(client.call("echo", "echo", {"a": 2}, timeout=600))
    except BrokerUnreachable as error:
        print(error.code)
"""


@pytest.mark.parametrize("idle", ["0", "0.2"])
def test_after_the_process_closed_all_descriptors_calls_end_typed_and_the_next_ones_work(
    broker: FakeBroker, idle: str
) -> None:
    command = [sys.executable, "-c", CLOSES_ALL, broker.address, idle]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)  # less than a deadline
    lines = done.stdout.splitlines()
    assert lines[-1] == "{'a': 2}", done.stdout + done.stderr
    assert set(lines) <= {"{'a': 2}", "broker_unreachable"}


@pytest.mark.skipif(sys.platform != "linux", reason="the script looks into /proc")
def test_a_file_that_took_the_number_of_a_descriptor_is_not_read_written_or_closed(broker: FakeBroker) -> None:
    command = [sys.executable, "-m", "tests.process.contract.foreign_files", broker.address, *KINDS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for kind in KINDS:
        cases = [one for one in found if one["kind"] == kind]
        assert {one["link"] for one in cases} == {"anon_inode", "socket"}, "the event loop's own, and sockets"
        assert len(cases) >= 4
    for one in found:
        assert one["after"] == one["before"], one
        assert one["ends"][-1] == "result", one
        assert set(one["ends"]) <= {"result", "broker_unreachable"}, one

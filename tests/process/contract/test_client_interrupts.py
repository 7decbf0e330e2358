"""Exceptions of signal handlers, calls within calls, and calls at the end of the process: the client stays usable."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from snakepit.pools.broker.errors import BadRequest, BrokerError, BrokerUnreachable, DeadlineExceeded
from snakepit.pools.client import Client, connect
from snakepit.pools.client.loop_thread import event_loop
from tests.process.contract.fake_broker import POOL, FakeBroker

ROOT = Path(__file__).parents[3]
TRACED = ("pools/client/", "workers/transport/", "asyncio/", "selectors.py")
DEADLINE = 20.0  # seconds; a client that works needs some milliseconds
STEP = 41  # of the instructions, so that the test takes seconds; with 1 it interrupts at each of them
END = 60_000

# An interrupt may leave a coroutine half-run, or come in a finalizer: Python then reports what it drops.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


class Interrupt(Exception):
    """A signal handler raises it, as in the idiom of a timeout by SIGALRM."""


class Countdown:
    """Raises `Interrupt` at the n-th instruction of the client on this thread."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.raised = False

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if not any(part in frame.f_code.co_filename for part in TRACED):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.left -= 1
            if self.left <= 0 and not self.raised:
                self.raised = True
                raise Interrupt
        return self.trace

    def run(self, work: Callable[[], object]) -> None:
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            work()
        except (Interrupt, BrokerUnreachable):
            pass
        finally:
            sys.settrace(before)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[FakeBroker]:
    broker = FakeBroker(tmp_path, delivers=True).start()
    yield broker
    broker.stop()


@pytest.fixture
def client(broker: FakeBroker) -> Iterator[Client]:
    with connect(broker.address) as client:
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
    for at in range(1, END, STEP):
        countdown = Countdown(at)
        countdown.run(lambda: work(client))
        assert client.call(POOL, "echo", {"at": at}, timeout=DEADLINE) == {"at": at}
        if not countdown.raised:
            break
    else:
        pytest.fail("the work has more instructions than were tried")


def test_calls_of_other_threads_end_typed_when_an_interrupt_gives_the_connection_up(client: Client) -> None:
    call(client)
    waiting = client.submit(POOL, "mute")
    for at in range(1, END, STEP):
        Countdown(at).run(lambda: call(client))
        if waiting.done():
            break
    error = waiting.exception(DEADLINE)
    assert isinstance(error, BrokerUnreachable)
    assert error.outcome == "unknown"
    assert "interrupted by Interrupt" in str(error)
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
    assert error.outcome == "unknown"
    call(client)
    assert event_loop() is not owner


def test_a_signal_handler_that_calls_gets_an_answer_or_one_typed_error_immediately(
    client: Client, broker: FakeBroker
) -> None:
    call(client)
    seen: list[object] = []

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            seen.append(client.call(POOL, "echo", {"n": 1}, timeout=DEADLINE))
        except BrokerError as error:
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
    (answer,) = seen
    assert answer == {"n": 1} or isinstance(answer, BadRequest), answer
    assert not isinstance(answer, DeadlineExceeded)
    call(client)


LAST_CALL = """
import os, sys
from snakepit.pools.broker.errors import BrokerUnreachable
from snakepit.pools.client import connect

class Last:
    def __init__(self):
        self.client = connect(sys.argv[1])
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
    assert (done.returncode, done.stdout, done.stderr) == (0, "not_started not_started ", "")

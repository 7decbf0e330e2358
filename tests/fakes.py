"""The ports' fakes, in memory. Time passes only when every task waits.

play(scenario(), clock)     run a coroutine on a loop whose time is the clock's; nothing sleeps
FakeLauncher, FakeLinker    workers that are objects: they greet, answer, stream, freeze and die as told
ListRecorder                keeps what it was told
FixedDefinitions            the desired state as a value
"""

from __future__ import annotations

import asyncio
import itertools
import json
import selectors
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from snakepit.pools.broker.errors import StacksUnavailable
from snakepit.pools.broker.events import Event
from snakepit.pools.broker.ports import (
    Assignment,
    Buffers,
    Definition,
    Exit,
    ForkFailed,
    Greeting,
    LaunchOrder,
    Loaded,
    Payload,
    TemplateOrder,
    TemplateReports,
    WorkerFailure,
    WorkerReports,
)
from snakepit.pools.broker.status import BrokerStatus, CommandInfo, StackFrame, ThreadStack
from snakepit.workers.wire.worker_pb2 import Delivery

T = TypeVar("T")
SIGKILL = 9


class FakeClock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1.7e9 + self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class _Selector(selectors.DefaultSelector):
    """Waiting moves the clock. Waiting for nothing at all is a mistake of the scenario."""

    clock: FakeClock

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("every task waits for an event that never comes")
        self.clock.advance(timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Work for a thread is done on the spot, and no time passes while it is."""

    def __init__(self, clock: FakeClock) -> None:
        selector = _Selector()
        selector.clock = clock
        self._clock = clock
        super().__init__(selector)

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done


def play(scenario: Coroutine[Any, Any, T], clock: FakeClock) -> T:
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(scenario)


COMMANDS = (
    CommandInfo("echo", idempotent=True, summary="Gives its value back."),
    CommandInfo("count", streams=True),
    CommandInfo("count_again", streams=True, idempotent=True),
    CommandInfo("hold"),
    CommandInfo("hold_again", idempotent=True),
    CommandInfo("obedient"),
    CommandInfo("raises"),
    CommandInfo("says"),
    CommandInfo("prints"),
    CommandInfo("slow", timeout=7.0),
    CommandInfo("works"),
)
# Adapters by path, as the real ones of tests.everything behave: loaded, refused, or silent for ever.
UNLOADABLE = {
    "tests.everything.FailsToLoad": WorkerFailure("internal", "the model file is missing", "RuntimeError"),
    "tests.no_such_module.Adapter": WorkerFailure("internal", "no_such_module", "ModuleNotFoundError"),
}
SILENT = "tests.everything.SlowToLoad"
# How the templates of adapters end up; those of all others load if the pool wants one in any case.
REFUSALS = {
    "tests.everything.ThreadInPreload": ("unsafe", "a thread runs beside the main one: 'ticker'"),
    "tests.everything.RaisesInPreload": ("load_failed", "RuntimeError: the weights are missing"),
}
WITH_PRELOAD = "tests.everything.Preloading"


class Cores:
    """Cores that calls compute on, for so long each; who finds none free waits in line."""

    def __init__(self, count: int) -> None:
        self.free = count
        self._line: deque[tuple[float, Callable[[], None]]] = deque()

    def compute(self, seconds: float, then: Callable[[], None]) -> None:
        self._line.append((seconds, then))
        self._next()

    def _next(self) -> None:
        while self._line and self.free:
            self.free -= 1
            seconds, then = self._line.popleft()
            asyncio.get_running_loop().call_later(seconds, self._done, then)

    def _done(self, then: Callable[[], None]) -> None:
        self.free += 1
        then()
        self._next()


class FakeProcess:
    """A worker's process, and the worker in it. Whatever it does, it does on the loop's next turn."""

    def __init__(
        self, order: LaunchOrder, number: int, on_exit: Callable[[Exit], None], launcher: FakeLauncher
    ) -> None:
        self.order = order
        self.pid = 40_000 + number
        self.socket_path = f"/fake/{number}"
        self.memory: float | None = 50.0
        self.cpu = 0.5
        self.mute = False  # its threads do not show their stacks
        self.frozen = False  # takes orders and does nothing, as after SIGSTOP
        self.ended: Exit | None = None
        self.kills = 0
        self.assigned: list[Assignment] = []
        self.cancelled: list[tuple[int, str]] = []
        self.passed: list[tuple[int, bytes | tuple[int, ...]]] = []  # bytes or descriptors of arguments, by sequence
        self.passes = True  # takes them
        self.link: FakeLink | None = None
        self._launcher = launcher
        self._on_exit = on_exit
        self._begun = 0
        self._lines: list[str] = []
        self._streams: dict[int, tuple[Iterator[int], int]] = {}  # what is left, credit
        self._running: set[int] = set()
        self._queue: list[Assignment] = []  # handed ahead, not begun
        self._revoked = range(0)
        self._skipped: set[int] = set()
        self._polite: set[int] = set()  # runs until it is asked to stop
        self._kept: list[Callable[[], None]] = []  # orders that came while it was frozen

    # As the broker sees it

    def kill(self) -> None:
        if self.ended is None:
            self.kills += 1
            self.die(Exit(signal=SIGKILL))

    def last_begun(self) -> int:
        return self._begun

    def has_begun(self, sequence: int) -> bool:
        return sequence <= self._begun and sequence not in self._skipped

    def revoke(self, first: int, last: int) -> None:
        self._revoked = range(first, last + 1)

    def pass_buffers(self, sequence: int, parts: Buffers | bytes | memoryview) -> bool:
        passed = bytes(parts) if isinstance(parts, bytes | memoryview) else tuple(parts.descriptors)
        self.passed.append((sequence, passed))
        return self.passes

    def output(self) -> list[str]:
        return list(self._lines)

    def memory_mb(self) -> float | None:
        return None if self.ended else self.memory

    def cpu_seconds(self) -> float | None:
        return None if self.ended else self.cpu

    async def stacks(self) -> tuple[ThreadStack, ...]:
        if self.ended:
            raise StacksUnavailable("The worker has just ended.")
        if self.mute:
            await asyncio.Event().wait()
        return (ThreadStack(self.pid, "python", "S", 0.5, (StackFrame("fake.py", 1, "wait"),)),)

    # As the test drives it

    def die(self, exit: Exit) -> None:
        """It ends now; the broker learns of it on the loop's next turn, link first."""
        if self.ended is None:
            self.ended = exit
            loop = asyncio.get_running_loop()
            if self.link is not None:
                loop.call_soon(self.link.lose)
            loop.call_soon(self._on_exit, exit)

    def lose_link(self) -> None:
        if self.link is not None:
            asyncio.get_running_loop().call_soon(self.link.lose)

    def say(self, line: str) -> None:
        self._lines.append(line)

    def finish(self, sequence: int, value: Any = None) -> None:
        """The end of a `hold`."""
        self.report("result", sequence, Payload(json.dumps(value).encode()), 0.5)

    def fail(self, sequence: int, failure: WorkerFailure) -> None:
        self.report("failure", sequence, failure, 0.5)

    def thaw(self) -> None:
        self.frozen = False
        kept, self._kept = self._kept, []
        for order in kept:
            self.take(order)

    # The worker

    def linked(self, link: FakeLink) -> None:
        self.link = link
        if self._launcher.boot_seconds:
            asyncio.get_running_loop().call_later(self._launcher.boot_seconds, self.boot)
        else:
            self.boot()

    def boot(self) -> None:
        if self.ended or self.order.adapter_path == SILENT:
            return
        if failure := self._launcher.unloadable.get(self.order.adapter_path):
            self.report("boot_failed", failure)
            asyncio.get_running_loop().call_soon(self.die, Exit(code=3))
            return
        self.report("hello", self._launcher.greeting)

    def report(self, kind: str, *facts: Any) -> None:
        if self.link is not None:
            asyncio.get_running_loop().call_soon(self.link.deliver, kind, facts)
        if kind in ("result", "delivered", "failure"):
            self._running.discard(facts[0])
            self._fill_slots()

    def take(self, order: Callable[[], None]) -> None:
        if self.frozen:
            self._kept.append(order)
        elif self.ended is None:
            order()

    def run(self, assignment: Assignment) -> None:
        self._queue.append(assignment)
        self._fill_slots()

    def _fill_slots(self) -> None:
        while self._queue and len(self._running) < self.order.spec.slots:
            assignment = self._queue.pop(0)
            self._begun = assignment.sequence
            if assignment.sequence in self._revoked:
                self._skipped.add(assignment.sequence)
                self.report("revoked", assignment.sequence)
                continue
            self._running.add(assignment.sequence)
            self._begin(assignment)

    def _begin(self, assignment: Assignment) -> None:
        arguments = json.loads(assignment.arguments)
        run = getattr(self, f"_run_{assignment.command}", None)
        if run is None:
            failure = WorkerFailure("command_unknown", f"no command {assignment.command!r}")
            self.report("failure", assignment.sequence, failure, 0.0)
        else:
            run(assignment, **arguments)

    def _result(self, assignment: Assignment, value: Any) -> None:
        data = json.dumps(value).encode()
        if assignment.reply_socket and self._deliver(assignment, data):
            self.report("delivered", assignment.sequence, 0.001)
        else:
            self.report("result", assignment.sequence, Payload(data), 0.001)

    def _deliver(self, assignment: Assignment, data: bytes) -> bool:
        letter = Delivery(ref=assignment.ref, json=data, call=assignment.call, worker=self.order.worker)
        letter.queued_seconds, letter.run_seconds = assignment.queued, 0.001
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            try:
                sender.sendto(letter.SerializeToString(), assignment.reply_socket)
            except OSError:
                return False
        return True

    def _run_echo(self, assignment: Assignment, value: Any = None) -> None:
        if "value" in assignment.attachments:
            self.report("result", assignment.sequence, Payload(assignment.attachments["value"], raw=True), 0.001)
        else:
            self._result(assignment, value)

    def _run_raises(self, assignment: Assignment, text: str = "as asked") -> None:
        message = f"LookupError: {text}"
        failure = WorkerFailure("adapter_error", message, "builtins.LookupError", "Traceback ... in raises")
        self.report("failure", assignment.sequence, failure, 0.001)

    def _run_says(self, assignment: Assignment, text: str) -> None:
        self.report("log", assignment.sequence, text)
        self._result(assignment, text)

    def _run_prints(self, assignment: Assignment, text: str = "", times: int = 1) -> None:
        self._lines += [text] * times
        self._result(assignment, times)

    def _run_hold(self, assignment: Assignment, path: str = "") -> None:
        """Deaf: ends only by `finish` or by the process's death."""

    _run_hold_again = _run_slow = _run_hold

    def _run_works(self, assignment: Assignment, waits: float, computes: float) -> None:
        """Waits, and then computes on the launcher's cores."""
        loop = asyncio.get_running_loop()
        began = loop.time()

        def end() -> None:
            self.cpu += computes
            self.report("result", assignment.sequence, Payload(b"null"), loop.time() - began)

        loop.call_later(waits, self._launcher.cores.compute, computes, end)

    def _run_obedient(self, assignment: Assignment) -> None:
        self._polite.add(assignment.sequence)

    def _run_count(self, assignment: Assignment, to: int, size: int = 0) -> None:
        if not assignment.credit:
            self._result(assignment, list(range(to)))
            return
        self._streams[assignment.sequence] = (iter(range(to)), 0)
        self.credited(assignment.sequence, assignment.credit)

    _run_count_again = _run_count

    def credited(self, sequence: int, chunks: int) -> None:
        if sequence not in self._streams:
            return
        numbers, credit = self._streams[sequence]
        credit += chunks
        while credit:
            number = next(numbers, None)
            if number is None:
                del self._streams[sequence]
                self.report("result", sequence, None, 0.001)
                return
            self.report("progress", sequence, 0.5, f"{number}")
            self.report("chunk", sequence, Payload(json.dumps(number).encode()))
            credit -= 1
        self._streams[sequence] = (numbers, credit)

    def asked_to_stop(self, sequence: int, reason: str) -> None:
        if any(sequence == waiting.sequence for waiting in self._queue):
            self._queue = [waiting for waiting in self._queue if waiting.sequence != sequence]
            self.report("failure", sequence, WorkerFailure(reason, "the call was asked to stop"), 0.0)
        if self._streams.pop(sequence, None) or sequence in self._polite:
            self._polite.discard(sequence)
            self.report("failure", sequence, WorkerFailure(reason, "the call was asked to stop"), 0.001)

    def leave(self) -> None:
        self.die(Exit(code=0))

    def answer_probe(self) -> None:
        self.report("vitals", self._launcher.greeting.gil_enabled, self._launcher.greeting.gil_culprit)


class FakeLink:
    def __init__(self, process: FakeProcess, reports: WorkerReports) -> None:
        self.closed = False
        self._process = process
        self._reports = reports
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(process.linked, self)

    def deliver(self, kind: str, facts: tuple[Any, ...]) -> None:
        if self.closed:
            return
        if kind == "result":
            self._reports.results([facts])  # type: ignore[list-item]
        else:
            getattr(self._reports, kind)(*facts)

    def lose(self) -> None:
        if not self.closed:
            self.closed = True
            self._reports.lost()

    def _send(self, order: Callable[[], None]) -> None:
        if not self.closed:
            self._loop.call_soon(self._process.take, order)

    def assign(self, assignment: Assignment) -> None:
        self._process.assigned.append(assignment)
        self._send(lambda: self._process.run(assignment))

    def assign_alike(
        self,
        first: Assignment,
        calls: Sequence[str],
        arguments: Sequence[bytes],
        budgets: Sequence[float],
        takers: Sequence[tuple[int, float]] = (),
    ) -> None:
        for at, (call, given, budget) in enumerate(zip(calls, arguments, budgets, strict=True)):
            self.assign(replace(first, sequence=first.sequence + at, call=call, arguments=given, budget=budget))

    def cancel(self, sequence: int, reason: str) -> None:
        self._process.cancelled.append((sequence, reason))
        self._send(lambda: self._process.asked_to_stop(sequence, reason))

    def credit(self, sequence: int, chunks: int) -> None:
        self._send(lambda: self._process.credited(sequence, chunks))

    def drain(self) -> None:
        self._send(self._process.leave)

    def probe(self) -> None:
        self._send(self._process.answer_probe)

    def close(self) -> None:
        self.closed = True


class FakeTemplate:
    """A template, which speaks on the loop's next turn."""

    def __init__(self, order: TemplateOrder, number: int, reports: TemplateReports) -> None:
        self.order = order
        self.pid = 20_000 + number
        self.ended: Exit | None = None
        self.dismissed = False
        self.memory: float | None = 100.0
        self.barren = ""  # why nothing comes out of it
        self._reports = reports
        asyncio.get_running_loop().call_soon(self.speak)

    def speak(self) -> None:
        path, spec = self.order.adapter_path, self.order.spec
        if self.ended or path == SILENT:
            return
        refusal = REFUSALS.get(path)
        if path in UNLOADABLE and "no_such_module" in path:
            refusal = ("load_failed", "ModuleNotFoundError: no_such_module")
        elif path != WITH_PRELOAD and spec.preload == "auto":
            refusal = refusal or ("no_preload", "Everything has no preload()")
        if refusal:
            self._reports.refused(*refusal)
            self.die(Exit(code=3))
        else:
            self._reports.loaded(1.0)

    def die(self, exit: Exit) -> None:
        if self.ended is None:
            self.ended = exit
            asyncio.get_running_loop().call_soon(self._reports.ended, exit)

    def dismiss(self) -> None:
        self.dismissed = True
        self.die(Exit(code=0))

    def kill(self) -> None:
        self.die(Exit(signal=SIGKILL))

    def output(self) -> list[str]:
        return []

    def memory_mb(self) -> float | None:
        return None if self.ended else self.memory


class FakeLauncher:
    """`processes` are all that were ever launched, `templates` all that were prepared, oldest first."""

    def __init__(self) -> None:
        self.processes: list[FakeProcess] = []
        self.templates: list[FakeTemplate] = []
        self.boot_seconds = 0.0
        self.greeting = Greeting(python="3.11.7", executable="/usr/bin/python3", commands=COMMANDS)
        self.unloadable = dict(UNLOADABLE)
        self.refusal: Exception | None = None  # raised instead of a launch
        self.gate: asyncio.Event | None = None  # a launch waits for it
        self.closed = False
        self.cores = Cores(1)
        self._numbers = itertools.count(1)

    async def launch(self, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> FakeProcess:
        if self.gate is not None:
            await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        if order.spec.python.startswith("/no/"):
            raise FileNotFoundError(f"[Errno 2] No such file or directory: {order.spec.python!r}")
        process = FakeProcess(order, next(self._numbers), on_exit, self)
        self.processes.append(process)
        return process

    async def prepare(self, order: TemplateOrder, reports: TemplateReports) -> FakeTemplate:
        if order.spec.python.startswith("/no/"):
            raise FileNotFoundError(f"[Errno 2] No such file or directory: {order.spec.python!r}")
        template = FakeTemplate(order, len(self.templates) + 1, reports)
        self.templates.append(template)
        return template

    async def fork(self, template: FakeTemplate, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> FakeProcess:
        if template.ended or template.barren:
            raise ForkFailed(template.barren or "its template has ended")
        return await self.launch(order, on_exit)

    @property
    def living(self) -> list[FakeProcess]:
        return [process for process in self.processes if process.ended is None]

    async def close(self) -> None:
        self.closed = True


class FakeLinker:
    def __init__(self, launcher: FakeLauncher) -> None:
        self._launcher = launcher

    def link(self, socket_path: str, reports: WorkerReports) -> FakeLink:
        (process,) = [process for process in self._launcher.processes if process.socket_path == socket_path]
        return FakeLink(process, reports)


class ListRecorder:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.moments: list[float] = []
        self.statuses: list[BrokerStatus] = []
        self.started = False
        self.stopped = False
        self.trouble: Exception | None = None  # raised at a look

    def start(self) -> None:
        self.started = True

    def record(self, at: float, event: Event) -> None:
        self.moments.append(at)
        self.events.append(event)

    def observe(self, status: BrokerStatus) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.statuses.append(status)

    def stop(self) -> None:
        self.stopped = True

    def told(self, kind: str, **fields: Any) -> list[Event]:
        return [
            event
            for event in self.events
            if event.kind == kind and all(getattr(event, key) == value for key, value in fields.items())
        ]


class FixedDefinitions:
    """`change` says what the next load finds; an exception as `trouble` is raised instead."""

    def __init__(self, *definitions: Definition, problems: tuple[tuple[str, str], ...] = ()) -> None:
        self._loaded = Loaded(definitions, problems)
        self.trouble: Exception | None = None

    def change(self, *definitions: Definition, problems: tuple[tuple[str, str], ...] = ()) -> None:
        self._loaded = Loaded(definitions, problems)

    def load(self) -> Loaded:
        if self.trouble is not None:
            raise self.trouble
        return self._loaded

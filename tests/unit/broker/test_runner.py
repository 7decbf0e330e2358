"""The runner and the broker with fakes for ports: real decisions, no processes, time that is only counted."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from dataclasses import fields
from random import Random
from typing import Any

import pytest

from snakepit.pools.broker import errors
from snakepit.pools.broker.broker import Broker
from snakepit.pools.broker.command_status import BatchStatus, CommandRunTimes
from snakepit.pools.broker.messages import Request, Timing
from snakepit.pools.broker.node import NodeFacts
from snakepit.pools.broker.ports import Definition, Exit, Greeting, Loaded, Payload, Ports, Race, WorkerFailure
from snakepit.pools.broker.runner.worker_handle import SILENT_CHECKS, STACKS_WITHIN
from snakepit.pools.broker.spec import PoolSpec
from snakepit.pools.broker.status import (
    CommandGrowthStatus,
    GrowthStatus,
    NodeStatus,
    PlannedWorker,
    PoolStatus,
    RecordedEvent,
    RunningCall,
    StackFrame,
    SweepResult,
    TemplateStatus,
    ThreadStack,
    UsageStatus,
    WorkerDump,
    WorkerStatus,
    as_json,
)
from snakepit.pools.broker.watch import CHECK_EVERY
from snakepit.pools.status_codec import decode_status, encode_status
from snakepit.pools.wire import broker_pb2 as pb
from tests.fakes import (
    COMMANDS,
    SILENT,
    FakeClock,
    FakeLauncher,
    FakeLinker,
    FakeProcess,
    FixedDefinitions,
    ListRecorder,
    play,
)

EVERYTHING = "tests.everything.Everything"


def pool(name: str = "p", path: str = EVERYTHING, **fields: Any) -> Definition:
    return Definition(PoolSpec(**{"name": name, "adapter": "everything", "size": 1, "preload": "off", **fields}), path)


class Answer:
    """A Reply that notes what came, and that nothing comes after the last word."""

    def __init__(self) -> None:
        self.payload: Payload | None = None
        self.error: errors.BrokerError | None = None
        self.timing: Timing | None = None
        self.chunks: list[Any] = []
        self.progressed: list[tuple[float, str]] = []
        self.logged: list[str] = []

    @property
    def over(self) -> bool:
        return self.timing is not None

    @property
    def value(self) -> Any:
        assert self.payload is not None, self.error
        return json.loads(self.payload.data)

    @property
    def code(self) -> str:
        return self.error.code if self.error else ""

    def _last(self, timing: Timing) -> None:
        assert not self.over, "answered twice"
        self.timing = timing

    def done(self, payload: Payload | None, timing: Timing) -> None:
        self._last(timing)
        self.payload = payload

    def failed(self, error: errors.BrokerError, timing: Timing) -> None:
        self._last(timing)
        self.error = error

    def chunk(self, payload: Payload) -> None:
        assert not self.over, "a chunk after the last word"
        self.chunks.append(json.loads(payload.data))

    def progress(self, fraction: float, message: str) -> None:
        assert not self.over
        self.progressed.append((fraction, message))

    def log(self, message: str) -> None:
        assert not self.over
        self.logged.append(message)


class Stage:
    """A broker over fakes."""

    def __init__(self, definitions: tuple[Definition, ...], interval: float) -> None:
        self.clock = FakeClock()
        self.launcher = FakeLauncher()
        self.recorder = ListRecorder()
        self.definitions = FixedDefinitions(*definitions)
        ports = Ports(self.launcher, FakeLinker(self.launcher), self.clock, self.definitions, self.recorder)
        facts = NodeFacts("n", "1.2", 7, "/run/broker.sock", "3.11.7", "ab12", sweep_interval=interval)
        self.broker = Broker(facts, ports, Random(1))
        self.answers: list[Answer] = []
        self.handles: list[Any] = []

    @property
    def processes(self) -> list[FakeProcess]:
        return self.launcher.processes

    def submit(self, command: str, arguments: dict[str, Any] | None = None, name: str = "p", **fields: Any) -> Answer:
        answer = Answer()
        request = Request(name, command, json.dumps(arguments or {}).encode(), **fields)
        self.answers.append(answer)
        self.handles.append(self.broker.submit(request, answer))
        return answer

    def submit_alike(self, command: str, arguments: list[dict[str, Any]], name: str = "p") -> list[Answer]:
        answers = [Answer() for _ in arguments]
        requests = [Request(name, command, json.dumps(given).encode()) for given in arguments]
        self.answers += answers
        self.handles += self.broker.submit_alike(list(zip(requests, answers, strict=True)))
        return answers

    async def call(self, command: str, arguments: dict[str, Any] | None = None, **fields: Any) -> Answer:
        answer = self.submit(command, arguments, **fields)
        await self.until(lambda: answer.over)
        return answer

    async def until(self, question: Callable[[], Any]) -> None:
        for _ in range(20_000):
            if question():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it never came true")

    async def turn(self) -> None:
        """Let everything that can happen now, happen."""
        for _ in range(12):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.turn()

    async def ready(self, workers: int = 1, name: str = "p") -> None:
        await self.until(lambda: len(self.told("worker.started", pool=name)) >= workers)

    def told(self, kind: str, **fields: Any) -> list[Any]:
        return self.recorder.told(kind, **fields)

    def row(self, name: str = "p") -> PoolStatus:
        return self.broker.snapshot(name).pools[0]

    def workers(self, name: str = "p") -> tuple[WorkerStatus, ...]:
        return self.broker.snapshot(name).workers


Scenario = Callable[[Stage], Coroutine[Any, Any, None]]


def scene(*definitions: Definition, interval: float = 3600.0) -> Callable[[Scenario], Callable[[], None]]:
    """Play a scenario with a started broker; afterwards every call is answered and no worker lives."""

    def direct(scenario: Scenario) -> Callable[[], None]:
        def test() -> None:
            stage = Stage(definitions, interval)

            async def whole() -> None:
                await stage.broker.start()
                await scenario(stage)
                await stage.broker.stop(grace=0.0)
                await stage.turn()
                assert all(answer.over for answer in stage.answers), "a call was never answered"
                assert not stage.launcher.living, "a process is left"

            play(whole(), stage.clock)

        test.__name__ = scenario.__name__
        return test

    return direct


# Calls


@scene(pool())
async def test_a_call_comes_back_with_its_timing(stage: Stage) -> None:
    await stage.ready()
    answer = await stage.call("echo", {"value": [1, "é"]})
    assert answer.value == [1, "é"]
    assert answer.timing == Timing("ab12-1", "p-ab12-1", 0.0, 0.001)


@scene(pool(size=2))
async def test_calls_that_are_alike_are_submitted_together_and_answered_one_by_one(stage: Stage) -> None:
    await stage.ready(2)
    answers = stage.submit_alike("echo", [{"value": number} for number in range(50)])
    await stage.until(lambda: all(answer.over for answer in answers))
    assert [answer.value for answer in answers] == list(range(50))
    assert len({answer.timing.call for answer in answers if answer.timing}) == 50
    assert stage.row().finished == 50


@scene(pool())
async def test_one_of_the_calls_that_were_submitted_together_is_cancelled_by_its_handle(stage: Stage) -> None:
    await stage.ready()
    answers = stage.submit_alike("hold", [{}, {}, {}])
    await stage.turn()
    stage.handles[1].cancel()
    assert [answer.code for answer in answers] == ["", "cancelled", ""]


@scene(pool())
async def test_calls_that_cannot_be_taken_are_refused_one_by_one(stage: Stage) -> None:
    await stage.ready()
    assert [answer.code for answer in stage.submit_alike("echo", [{}, {}], name="q")] == ["pool_unknown"] * 2
    assert [answer.code for answer in stage.submit_alike("ecko", [{}, {}])] == ["command_unknown"] * 2
    await stage.broker.stop(grace=0.0)
    assert [answer.code for answer in stage.submit_alike("echo", [{}, {}])] == ["shutting_down"] * 2
    for handle in stage.handles:
        handle.cancel()


@scene(pool())
async def test_attachments_travel_and_raw_bytes_come_back(stage: Stage) -> None:
    await stage.ready()
    answer = await stage.call("echo", attachments={"value": b"\0\1"})
    assert answer.payload == Payload(b"\0\1", raw=True)


@scene(pool())
async def test_a_command_that_raises_is_answered_with_its_type_and_traceback(stage: Stage) -> None:
    await stage.ready()
    answer = await stage.call("raises", {"text": "gone"})
    assert answer.error is not None
    assert (answer.code, answer.error.outcome, answer.error.message) == ("adapter_error", "failed", "LookupError: gone")
    assert answer.error.details["type"] == "builtins.LookupError"
    assert (stage.row().failed, stage.row().finished) == (1.0, 0.0)


@scene(pool())
async def test_an_unknown_pool_and_command_are_named_with_the_nearest_known_one(stage: Stage) -> None:
    await stage.ready()
    unknown = await stage.call("echo", name="q")
    assert unknown.code == "pool_unknown"
    assert unknown.error.message == "No pool 'q' on node n. Known are: p."  # type: ignore[union-attr]
    misspelt = await stage.call("ecko")
    assert misspelt.error.message == "Pool p has no command 'ecko'. Did you mean echo?"  # type: ignore[union-attr]
    for long in (await stage.call("z" * 1000), await stage.call("echo", name="z" * 1000)):
        assert f"{'z' * 99}…'" in long.error.message  # type: ignore[union-attr]
        assert len(str(long.error.details)) < 500  # type: ignore[union-attr]
    strange = await stage.call("zzzzz")
    assert "It has: count, count_again, echo" in strange.error.message  # type: ignore[union-attr]
    assert stage.handles[0].cancel() is None
    assert stage.handles[0].credit(1) is None
    for ask in (stage.broker.commands, stage.broker.snapshot, lambda name: stage.broker.recycle(name, "", "", "")):
        with pytest.raises(errors.PoolUnknown):
            ask("q")


@scene()
async def test_a_broker_without_pools_reports_that(stage: Stage) -> None:
    answer = await stage.call("echo")
    assert "Known are: none." in answer.error.message  # type: ignore[union-attr]


@scene(pool(name="digits"), pool(name="primes"))
async def test_a_misspelt_pool_is_met_with_the_one_that_was_meant(stage: Stage) -> None:
    answer = await stage.call("echo", name="digit")
    assert "Did you mean digits?" in answer.error.message  # type: ignore[union-attr]


@scene(pool())
async def test_a_stream_brings_chunks_as_credit_allows(stage: Stage) -> None:
    await stage.ready()
    answer = stage.submit("count", {"to": 5}, credit=2)
    await stage.turn()
    assert answer.chunks == [0, 1]
    stage.handles[-1].credit(2)
    await stage.turn()
    assert answer.chunks == [0, 1, 2, 3]
    stage.handles[-1].credit(9)
    await stage.turn()
    assert answer.over
    assert answer.payload is None
    assert answer.progressed[0] == (0.5, "0")
    stage.handles[-1].credit(1)


@scene(pool())
async def test_credit_given_while_a_call_waits_is_kept_for_it(stage: Stage) -> None:
    await stage.ready()
    blocker = stage.submit("hold")
    waiting = stage.submit("count", {"to": 3}, credit=1)
    stage.handles[-1].credit(2)
    await stage.turn()
    stage.processes[0].finish(1)
    await stage.turn()
    assert blocker.over
    assert waiting.chunks == [0, 1, 2]


@scene(pool())
async def test_more_credit_than_the_wire_can_carry_is_cut(stage: Stage) -> None:
    await stage.ready()
    stage.submit("hold")
    stage.submit("count", {"to": 1}, credit=2**32 - 1)
    stage.handles[-1].credit(2**32 - 1)
    await stage.turn()
    stage.processes[0].finish(1)
    await stage.turn()
    assert stage.processes[0].assigned[-1].credit <= 2**32 - 1


@scene(pool())
async def test_log_lines_reach_the_caller_and_long_ones_are_cut(stage: Stage) -> None:
    await stage.ready()
    answer = await stage.call("says", {"text": "x" * 10_000})
    assert [len(line) for line in answer.logged] == [4096]


@scene(pool(cancel_grace=1.0))
async def test_a_cancelled_call_is_answered_at_once_and_its_late_result_is_dropped(stage: Stage) -> None:
    await stage.ready()
    answer = stage.submit("hold")
    await stage.turn()
    stage.handles[0].cancel()
    assert answer.code == "cancelled"
    stage.handles[0].cancel()
    assert stage.processes[0].cancelled == [(1, "cancelled")]
    stage.processes[0].report("chunk", 1, Payload(b"1"))
    stage.processes[0].report("progress", 1, 0.5, "")
    stage.processes[0].report("log", 1, "")
    stage.processes[0].finish(1, "late")
    await stage.turn()
    assert stage.row().free == 1
    assert answer.payload is None
    assert stage.processes[0].kills == 0


@scene(pool(cancel_grace=1.0))
async def test_a_deaf_call_ends_at_its_deadline_and_its_process_after_the_grace(stage: Stage) -> None:
    await stage.ready()
    began = stage.clock.now
    answer = await stage.call("hold", timeout=3.0)
    assert answer.code == "deadline_exceeded"
    assert stage.clock.now - began == pytest.approx(3.0, abs=0.02)
    await stage.until(lambda: stage.processes[0].ended)
    assert stage.clock.now - began == pytest.approx(4.0, abs=0.02)
    await stage.ready(2)
    assert (await stage.call("echo", {"value": 1})).value == 1


@scene(pool(call_timeout=30.0, stream_timeout=40.0))
async def test_the_budget_is_the_callers_else_the_commands_else_the_pools(stage: Stage) -> None:
    await stage.ready()
    for command, timeout in [("slow", 0.0), ("slow", 3.0), ("hold", 0.0), ("count", 0.0), ("hold", 1e300)]:
        answer = stage.submit(command, {"to": 1} if command == "count" else {}, timeout=timeout)
        await stage.turn()
        if not answer.over:
            stage.processes[0].finish(len(stage.processes[0].assigned))
        await stage.turn()
    assert [round(sent.budget, 3) for sent in stage.processes[0].assigned] == [7.0, 3.0, 30.0, 40.0, 86_400.0]


@scene(pool(path=SILENT, startup_timeout=1000.0))
async def test_a_call_before_the_commands_are_known_waits_and_learns_that_it_is_idempotent(stage: Stage) -> None:
    await stage.turn()
    answer = stage.submit("hold_again")
    unknown = stage.submit("no_such_command")
    await stage.turn()
    assert not answer.over
    stage.processes[0].report("hello", stage.launcher.greeting)
    await stage.turn()
    stage.processes[0].die(Exit(signal=11))
    await stage.turn()
    assert stage.told("call.retried")
    stage.processes[1].report("hello", stage.launcher.greeting)
    await stage.turn()
    stage.processes[1].finish(1, "again")
    await stage.turn()
    assert answer.value == "again"
    assert unknown.code == "command_unknown"


# Deaths


@scene(pool(size=2))
async def test_a_call_that_had_not_begun_when_its_worker_died_runs_elsewhere(stage: Stage) -> None:
    await stage.ready(2)
    stage.processes[0].frozen = True
    answer = stage.submit("hold")
    await stage.turn()
    stage.processes[0].die(Exit(signal=9))
    await stage.turn()
    assert len(stage.processes[1].assigned) == 1
    stage.processes[1].finish(1, "here")
    await stage.turn()
    assert answer.value == "here"
    assert answer.timing.worker == "p-ab12-2"  # type: ignore[union-attr]


@scene(pool(size=2))
async def test_a_call_that_had_begun_is_lost_with_what_the_worker_printed(stage: Stage) -> None:
    await stage.ready(2)
    answer = stage.submit("hold")
    await stage.turn()
    stage.processes[0].say("Segmentation fault")
    stage.processes[0].die(Exit(signal=11))
    await stage.turn()
    assert answer.error is not None
    assert (answer.code, answer.error.outcome) == ("worker_lost", "unknown")
    assert answer.error.details["output"] == "Segmentation fault"
    assert stage.told("worker.died")[0].data["output"] == "Segmentation fault"


@scene(pool(size=2))
async def test_a_stream_whose_first_chunks_are_with_the_caller_is_not_run_again(stage: Stage) -> None:
    await stage.ready(2)
    fresh = stage.submit("count_again", {"to": 3}, credit=0)
    await stage.turn()
    assert fresh.value == [0, 1, 2]
    answer = stage.submit("count_again", {"to": 5}, credit=2)
    await stage.turn()
    assert answer.chunks == [0, 1]
    holder = next(process for process in stage.processes if process.assigned and process.assigned[-1].credit)
    holder.die(Exit(signal=9))
    await stage.ready(3)  # a greeting is no reason to forget it
    assert answer.code == "worker_lost"
    assert answer.chunks == [0, 1], "the caller would have got them twice"


@scene(pool())
async def test_a_worker_whose_link_is_lost_is_ended_after_a_moment(stage: Stage) -> None:
    await stage.ready()
    running = stage.submit("hold")
    await stage.turn()
    stage.processes[0].lose_link()
    await stage.pass_time(1.9)
    assert stage.processes[0].kills == 0
    waiting = stage.submit("echo", {"value": 2})
    await stage.pass_time(0.2)
    assert stage.processes[0].kills == 1
    assert running.code == "worker_lost"
    await stage.until(lambda: running.over and waiting.over)
    assert waiting.value == 2


@scene(pool())
async def test_a_call_that_was_given_to_a_worker_without_a_link_runs_elsewhere(stage: Stage) -> None:
    await stage.ready()
    stage.processes[0].lose_link()
    await stage.turn()
    answer = stage.submit("hold")
    await stage.until(lambda: len(stage.processes) == 2 and stage.processes[1].assigned)
    stage.processes[1].finish(1, "there")
    await stage.turn()
    assert answer.value == "there"


@scene(pool(size=2))
async def test_an_idle_worker_without_a_link_is_killed_where_others_are_asked(stage: Stage) -> None:
    await stage.ready(2)
    stage.processes[0].lose_link()
    await stage.turn()
    stage.definitions.change(pool(size=1))
    await stage.pass_time(1.1)
    assert [process.ended for process in stage.processes].count(None) == 1


# Starts


@scene(pool(boot_budget=2))
async def test_a_launch_that_fails_counts_as_a_failed_start(stage: Stage) -> None:
    stage.definitions.change(pool("q", boot_budget=2))
    stage.launcher.refusal = OSError("no such interpreter")
    await stage.until(lambda: stage.told("pool.failed", pool="q"))
    assert "it could not be launched: no such interpreter" in stage.told("pool.failed", pool="q")[0].message
    assert (await stage.call("echo", name="q")).code == "pool_failed"
    row = stage.row("q")
    assert row.state == "failed"
    assert "no such interpreter" in row.reason
    stage.launcher.refusal = None
    await stage.until(lambda: stage.told("pool.recovered", pool="q"))
    assert (await stage.call("echo", {"value": 1}, name="q")).value == 1


@scene(pool(boot_budget=1, path="tests.everything.FailsToLoad"))
async def test_an_adapter_that_cannot_load_fails_the_pool_with_its_reason(stage: Stage) -> None:
    await stage.until(lambda: stage.told("pool.failed"))
    assert "RuntimeError: the model file is missing" in stage.told("pool.failed")[0].message


@scene(pool(boot_budget=1, path=SILENT))
async def test_a_worker_that_dies_before_it_is_ready_is_reported_with_its_output(stage: Stage) -> None:
    await stage.turn()
    stage.processes[0].say("ImportError: libfoo.so")
    stage.processes[0].die(Exit(signal=6))
    await stage.turn()
    message = stage.told("pool.failed")[0].message
    assert "SIGABRT" in message
    assert "it printed: ImportError: libfoo.so" in message


@scene()
async def test_a_worker_killed_before_its_process_is_there_is_killed_once_it_is(stage: Stage) -> None:
    stage.launcher.gate = asyncio.Event()
    stage.definitions.change(pool(startup_timeout=2.0))
    await stage.until(lambda: stage.told("worker.killed"))
    assert stage.processes == []
    stage.launcher.gate.set()
    await stage.turn()
    assert stage.processes[0].kills == 1
    assert stage.processes[0].link is None
    assert stage.told("worker.died")[0].reason == "boot_failure"


@scene(pool(size=2))
async def test_the_snapshot_shows_a_worker_before_its_process_is_there(stage: Stage) -> None:
    await stage.ready(2)
    stage.launcher.gate = asyncio.Event()
    stage.processes[0].die(Exit(signal=9))
    await stage.turn()
    starting = next(worker for worker in stage.workers() if worker.state == "starting")
    assert (starting.pid, starting.gil, starting.output) == (0, "", ())
    encode_status(stage.broker.snapshot())
    stage.launcher.gate.set()


# Definitions


@scene(pool("a"), pool("b"))
async def test_pools_come_change_and_go_with_their_definitions(stage: Stage) -> None:
    await stage.ready(name="a")
    stage.definitions.change(pool("a", size=2), pool("c"), pool("d", enabled=False))
    await stage.pass_time(1.1)
    assert sorted(stage.broker.runners) == ["a", "c"]
    assert [event.pool for event in stage.told("pool.applied")] == ["a", "b", "a", "c"]
    assert [event.pool for event in stage.told("pool.removed")] == ["b"]
    await stage.ready(2, name="a")
    await stage.ready(1, name="c")
    assert (await stage.call("echo", name="b")).code == "pool_unknown"


@scene(pool())
async def test_an_invalid_definition_keeps_the_previous_one_and_is_reported_once(stage: Stage) -> None:
    await stage.ready()
    stage.definitions.change(problems=(("p", "size: 0 is outside 1 to 1000"), ("new", "adapter: unknown")))
    await stage.pass_time(5.0)
    assert (await stage.call("echo", {"value": 1})).value == 1
    assert sorted(event.pool for event in stage.told("pool.invalid")) == ["new", "p"]
    assert stage.broker.snapshot().node.problems == (
        "p: size: 0 is outside 1 to 1000",
        "new: adapter: unknown",
    )
    stage.definitions.change(pool())
    await stage.pass_time(1.1)
    assert stage.broker.snapshot().node.problems == ()
    assert len(stage.told("pool.applied")) == 1


@scene(pool())
async def test_definitions_that_cannot_be_read_keep_what_runs_and_are_reported_once(stage: Stage) -> None:
    await stage.ready()
    stage.definitions.trouble = OSError("the database is away\n\tIs it running?")  # as PostgreSQL says it
    await stage.pass_time(3.0)
    (problem,) = stage.broker.snapshot().node.problems
    assert problem == "the definitions cannot be read: the database is away Is it running?"
    assert len(stage.told("pool.invalid", level="error")) == 1
    assert (await stage.call("echo", {"value": 1})).value == 1
    new = (await stage.call("echo", name="q")).error.message  # type: ignore[union-attr]
    assert new.endswith("Known are: p. It may be new: the definitions cannot be read now. See: snakepit status")
    assert "the database is away" not in new
    stage.definitions.trouble = None
    await stage.pass_time(1.1)
    assert stage.broker.snapshot().node.problems == ()


def test_a_broker_starts_though_its_definitions_cannot_be_read_yet() -> None:
    stage = Stage((pool(),), 3600.0)
    stage.definitions.trouble = OSError("the database is away")

    async def scenario() -> None:
        await stage.broker.start()
        assert "the database is away" in stage.broker.snapshot().node.problems[0]
        stage.definitions.trouble = None
        await stage.ready()
        await stage.broker.stop(0.0)

    play(scenario(), stage.clock)


@scene(pool(size=1))
async def test_another_path_of_the_same_adapter_is_rolled_out(stage: Stage) -> None:
    await stage.ready()
    stage.definitions.change(pool(path="tests.everything.NewVersion"))
    await stage.ready(2)
    assert [process.order.adapter_path for process in stage.launcher.living][-1] == "tests.everything.NewVersion"
    await stage.until(lambda: stage.told("worker.recycled"))


@scene(pool(drain_timeout=30.0))
async def test_a_removed_pool_lets_its_calls_finish_and_may_come_back(stage: Stage) -> None:
    await stage.ready()
    running = stage.submit("hold")
    waiting = stage.submit("echo")
    await stage.turn()
    stage.definitions.change()
    await stage.pass_time(1.1)
    assert waiting.code == "shutting_down"
    assert [handle.id for handle in stage.broker.handles()] == ["p-ab12-1"], "its processes are still ours"
    assert (stage.row().state, stage.row().reason) == ("stopping", "the pool is removed; its last calls still run")
    assert [(one.id, one.state, one.load) for one in stage.workers("")] == [("p-ab12-1", "draining", 1)]
    stage.definitions.change(pool())
    await stage.pass_time(5.0)
    assert not running.over
    assert len(stage.processes) == 1, "the name is taken until the old pool is gone"
    stage.processes[0].finish(1, "done")
    await stage.turn()
    assert running.value == "done"
    await stage.ready(2)
    assert (stage.row().state, stage.row().reason) == ("ready", "")
    assert (await stage.call("echo", {"value": 3})).value == 3


def test_an_older_reading_of_the_definitions_never_undoes_a_newer_one() -> None:
    release = threading.Event()

    class SlowFirst:
        wanted = 1
        reads = 0

        def load(self) -> Loaded:
            self.reads += 1
            seen = Loaded((pool(size=self.wanted),))
            if self.reads == 2:  # the first after the start
                release.wait(20)
            return seen

    async def scenario() -> None:
        stage = Stage((), 3600.0)
        slow = SlowFirst()
        ports = stage.broker.ports
        broker = Broker(
            stage.broker.facts, Ports(ports.launcher, ports.linker, ports.clock, slow, ports.recorder), Random(1)
        )
        await broker.apply()
        first = asyncio.create_task(broker.apply())
        while slow.reads < 2:
            await asyncio.sleep(0.001)
        slow.wanted = 2
        second = asyncio.create_task(broker.apply())
        await asyncio.wait({second}, timeout=0.1)
        release.set()
        await asyncio.gather(first, second)
        assert broker.runners["p"].definition.spec.size == 2
        await broker.stop(0.0)

    asyncio.run(scenario())


# Sweeps


@scene(pool())
async def test_an_idle_worker_that_does_not_answer_is_replaced_without_a_sweep(stage: Stage) -> None:
    await stage.ready()
    await stage.pass_time(60.0)
    assert stage.processes[0].kills == 0
    stage.processes[0].frozen = True
    await stage.pass_time(CHECK_EVERY * SILENT_CHECKS - 0.5)
    assert stage.processes[0].kills == 0
    await stage.pass_time(2 * CHECK_EVERY)
    assert stage.processes[0].kills == 1
    assert "did not answer for 6.0 s" in stage.told("worker.health_check_failed")[0].message
    await stage.ready(2)


@scene(pool())
async def test_a_worker_is_not_replaced_because_the_broker_was_stopped(stage: Stage) -> None:
    await stage.ready()
    stage.processes[0].frozen = True
    await stage.pass_time(CHECK_EVERY + 0.1)  # it has a probe without an answer
    stage.clock.advance(100.0)
    await stage.turn()
    stage.processes[0].thaw()
    await stage.pass_time(60.0)
    assert stage.processes[0].kills == 0


@scene(pool())
async def test_a_look_that_fails_does_not_end_the_watch(stage: Stage) -> None:
    await stage.ready()
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["message"]))
    look = stage.broker.runners["p"].check

    def fails() -> None:
        stage.broker.runners["p"].check = look  # type: ignore[method-assign]
        raise ValueError("once")

    stage.broker.runners["p"].check = fails  # type: ignore[method-assign]
    stage.processes[0].frozen = True
    await stage.until(lambda: stage.processes[0].kills)
    assert reported == ["a look at workers failed"]


@scene(pool(cancel_grace=100.0))
async def test_a_silent_worker_that_is_busy_is_left_alone(stage: Stage) -> None:
    await stage.ready()
    answer = stage.submit("hold")
    await stage.turn()
    stage.processes[0].frozen = True
    await stage.pass_time(40.0)
    assert stage.processes[0].kills == 0
    (told,) = stage.told("worker.health_check_failed")
    assert told.reason == "busy"
    assert stage.workers()[0].silent_for > 35.0
    stage.processes[0].thaw()
    stage.processes[0].finish(1)
    await stage.turn()
    assert stage.workers()[0].silent_for == 0.0
    await stage.pass_time(20.0)
    assert stage.processes[0].kills == 0
    assert answer.over


@scene(pool(size=2, memory_hard_mb=100.0))
async def test_a_busy_worker_above_its_hard_memory_limit_is_killed_without_a_sweep(stage: Stage) -> None:
    await stage.ready(2)
    answer = stage.submit("hold")
    await stage.turn()
    (busy,) = [process for process in stage.processes if process.assigned]
    await stage.pass_time(2 * CHECK_EVERY)  # each one's first reading
    for process in stage.processes:
        process.memory = 150.0
    await stage.pass_time(2 * CHECK_EVERY)
    assert "150 MiB, limit 100 MiB" in stage.told("worker.killed")[0].message
    assert [process.kills for process in stage.processes[:2]] == [process is busy for process in stage.processes[:2]]
    assert answer.over


@scene(pool(size=1, memory_soft_mb=100.0, min_lifetime=0.0))
async def test_a_busy_worker_above_its_soft_memory_limit_is_replaced_without_a_sweep(stage: Stage) -> None:
    await stage.ready()
    stage.processes[0].memory = 150.0
    for _ in range(4):
        await stage.call("echo", {"value": 1})
        await stage.pass_time(CHECK_EVERY)
    await stage.until(lambda: stage.told("worker.recycled", reason="memory_soft"))


@scene(pool(size=1))
async def test_memory_without_a_limit_is_left_to_the_sweeps(stage: Stage) -> None:
    await stage.ready()
    await stage.call("echo", {"value": 1})
    await stage.pass_time(5.0)
    assert stage.workers()[0].measured_mb is None


@scene(pool(size=2, memory_hard_mb=100.0))
async def test_a_sweep_measures_memory_and_counts_the_workers_to_replace(stage: Stage) -> None:
    await stage.ready(2)
    stage.processes[0].memory = 150.0
    assert stage.broker.sweep("beat", 15.0) == SweepResult(pools=1, workers=2, planned=0)
    await stage.turn()
    assert stage.processes[0].kills == 1
    assert "150 MiB" in stage.told("worker.killed")[0].message
    assert next(worker.memory_mb for worker in stage.workers()) == 50.0
    assert stage.broker.recycle("p", "", "ada", "new model") == 2
    assert any("ordered by ada: new model" in worker.reason for worker in stage.workers())


@scene(pool())
async def test_one_worker_is_recycled_by_name_and_a_stranger_is_unknown(stage: Stage) -> None:
    await stage.ready()
    with pytest.raises(errors.WorkerUnknown, match="Pool p has no worker p-9"):
        stage.broker.recycle("p", "p-9", "", "")
    assert stage.broker.recycle("p", "p-ab12-1", "", "") == 1
    await stage.until(lambda: stage.told("worker.recycled"))
    assert "ordered by an operator: no reason given" in stage.told("worker.recycled")[0].message


@scene(pool(ttl=100.0, jitter=0.0), interval=10.0)
async def test_after_three_missed_intervals_the_broker_sweeps_by_itself_and_reports_it_once(stage: Stage) -> None:
    await stage.ready()
    assert stage.broker.snapshot().node.clock == "waiting"
    await stage.pass_time(25.0)
    assert not stage.told("clock.missing")
    await stage.pass_time(7.0)
    (missing,) = stage.told("clock.missing")
    assert "no sweep for 30 s" in missing.message
    assert stage.broker.snapshot().node.clock == "lifecycle clock missing"
    await stage.until(lambda: stage.told("worker.recycled", reason="ttl"))
    assert len(stage.told("clock.missing")) == 1
    stage.broker.sweep("beat", 10.0)
    (found,) = stage.told("clock.found")
    assert "sweeps come from beat again" in found.message
    assert stage.broker.snapshot().node.clock == "beat"
    await stage.pass_time(20.0)
    stage.broker.sweep("beat", 10.0)
    assert len(stage.told("clock.found")) == 1


# The end


def test_a_stop_waits_for_running_calls_within_the_grace_and_refuses_the_others() -> None:
    stage = Stage((pool(drain_timeout=60.0),), 3600.0)

    async def scenario() -> None:
        await stage.broker.start()
        await stage.ready()
        running, waiting = stage.submit("hold"), stage.submit("echo")
        await stage.turn()
        stop = asyncio.create_task(stage.broker.stop(grace=20.0))
        await stage.pass_time(5.0)
        assert waiting.code == "shutting_down"
        assert stage.submit("echo").code == "shutting_down"
        assert not running.over
        assert stage.broker.snapshot().node.draining
        assert stage.row().state == "stopping"
        stage.processes[0].finish(1, "in time")
        await stop
        assert running.value == "in time"
        assert stage.processes[0].ended == Exit(code=0)
        await stage.broker.stop(grace=20.0)

    play(scenario(), stage.clock)
    assert stage.recorder.stopped
    assert stage.launcher.closed
    assert stage.recorder.statuses[-1].workers == ()


def test_a_drained_node_refuses_new_calls_finishes_those_it_holds_and_serves_again() -> None:
    stage = Stage((pool(drain_timeout=60.0), pool(name="q")), 3600.0)

    def node() -> NodeStatus:
        return stage.broker.snapshot().node

    async def scenario() -> None:
        await stage.broker.start()
        await stage.ready()
        running, waiting = stage.submit("hold"), stage.submit("echo", {"value": 2})
        await stage.turn()
        stage.broker.drain("ada", "a new disk")
        since = stage.clock.wall()
        assert (node().draining, node().drain_since, node().drain_actor) == (True, since, "ada")
        refused = [stage.submit("echo", name=name) for name in ("p", "q", "nope")]
        assert {answer.code for answer in refused} == {"node_draining"}
        assert (running.over, waiting.over) == (False, False)
        await stage.pass_time(2.0)
        stage.broker.drain("bob", "the disk is late")
        assert (node().drain_since, node().drain_actor) == (since, "bob")
        stage.processes[0].finish(1, "whole")
        await stage.until(lambda: running.over and waiting.over)
        assert (running.value, waiting.value) == ("whole", 2)
        assert stage.row().ready == 1, "its workers stay warm"
        stage.broker.resume("ada", "it is in")
        assert (node().draining, node().drain_since, node().drain_actor) == (False, 0.0, "")
        assert (await stage.call("echo", {"value": 3})).value == 3
        stage.broker.drain("ada", "")
        await stage.broker.stop(grace=1.0)
        assert stage.submit("echo").code == "shutting_down"
        assert (node().draining, node().drain_since) == (True, 0.0)

    play(scenario(), stage.clock)
    told = [event for event in stage.recorder.events if event.kind == "operator.acted"]
    acted = [(event.reason, event.data["actor"]) for event in told]
    assert acted == [("drain", "ada"), ("drain", "bob"), ("resume", "ada"), ("drain", "ada")]


@pytest.mark.parametrize("removed", [False, True])
def test_a_stop_whose_grace_is_over_ends_what_is_left(removed: bool) -> None:
    stage = Stage((pool(drain_timeout=600.0),), 3600.0)

    async def scenario() -> None:
        await stage.broker.start()
        await stage.ready()
        running = stage.submit("hold", timeout=1000.0)
        await stage.turn()
        if removed:  # and still finishing its call
            stage.definitions.change()
            await stage.pass_time(1.1)
            assert stage.told("pool.removed")
        began = stage.clock.now
        await stage.broker.stop(grace=3.0)
        assert stage.clock.now - began == pytest.approx(3.0, abs=0.01)
        assert running.code == "worker_lost"
        assert stage.processes[0].kills == 1

    play(scenario(), stage.clock)


def test_what_is_wanted_while_the_broker_stops_is_not_started() -> None:
    stage = Stage((pool(),), 3600.0)

    async def scenario() -> None:
        await stage.broker.start()
        await stage.ready()
        stage.submit("hold")
        await stage.turn()
        stop = asyncio.create_task(stage.broker.stop(grace=5.0))
        await stage.turn()
        stage.definitions.change(pool(), pool("late"))
        await stage.broker.apply()
        assert "late" not in stage.broker.runners
        await stop

    play(scenario(), stage.clock)


# Looking


@scene(pool("t", profile="thread", threads=3, size=2), pool("q", paused=True), interval=15.0)
async def test_a_status_is_the_same_after_its_way_through_protobuf(stage: Stage) -> None:
    await stage.ready(2, name="t")
    stage.submit("hold", name="t")
    stage.submit("count", {"to": 9}, name="t", credit=1)
    stage.processes[0].say("a line")
    stage.broker.sweep("beat", 15.0)
    await stage.pass_time(2.0)
    status = stage.broker.snapshot()
    reply = encode_status(status)
    node, pools, workers = reply.node, reply.pools, reply.workers
    assert (node.name, node.version, node.pid, node.python, node.clock) == ("n", "1.2", 7, "3.11.7", "beat")
    assert node.uptime > 0
    assert [(row.name, row.state) for row in pools] == [("q", "paused"), ("t", "ready")]
    threads = pools[1]
    assert (threads.slots, threads.free, threads.busy, threads.profile) == (6, 4, 2, "thread")
    busy = [call for worker in workers for call in worker.calls]
    assert sorted(call.command for call in busy) == ["count", "hold"]
    assert all(call.seconds >= 2.0 and call.remaining > 0 and call.id.startswith("ab12-") for call in busy)
    assert [list(worker.output) for worker in workers].count(["a line"]) == 1
    assert {worker.gil for worker in workers} == {"on"}
    assert decode_status(reply).pools == status.pools, "what is read is what was written"
    assert list(as_json(status)) == ["node", "pools", "workers"], "events and histograms are for watchers only"
    json.dumps(as_json(status), allow_nan=False)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NodeStatus, pb.Node),
        (PoolStatus, pb.Pool),
        (WorkerStatus, pb.Worker),
        (TemplateStatus, pb.Template),
        (UsageStatus, pb.Usage),
        (GrowthStatus, pb.Growth),
        (CommandGrowthStatus, pb.CommandGrowth),
        (BatchStatus, pb.Batches),
        (CommandRunTimes, pb.RunTimes),
        (RunningCall, pb.RunningCall),
        (RecordedEvent, pb.Event),
        (PlannedWorker, pb.PlannedWorker),
        (WorkerDump, pb.DumpReply),
        (ThreadStack, pb.ThreadStack),
        (StackFrame, pb.Frame),
    ],
)
def test_a_status_and_its_message_have_the_same_fields(kind: Any, message: Any) -> None:
    of_the_client = {"node"} if kind is RecordedEvent else set()
    names = [field.name for field in fields(kind) if field.name not in of_the_client]
    assert names == [field.name for field in message.DESCRIPTOR.fields]


@scene(pool(size=3, path=SILENT, startup_timeout=1000.0))
async def test_a_pool_reports_its_state_and_the_reason(stage: Stage) -> None:
    await stage.turn()
    assert (stage.row().state, stage.row().reason) == ("starting", "")
    stage.processes[0].report("hello", stage.launcher.greeting)
    await stage.turn()
    assert (stage.row().state, stage.row().reason) == ("degraded", "1 of 3 workers are ready")
    stage.processes[1].report("boot_failed", WorkerFailure("internal", "no model"))
    stage.processes[1].die(Exit(code=3))
    await stage.turn()
    assert stage.row().reason == "1 of 3 workers are ready; 1 failed start in a row; the last one: no model"
    stage.processes[2].report("hello", stage.launcher.greeting)
    await stage.until(lambda: len(stage.processes) == 4)
    stage.processes[3].report("hello", stage.launcher.greeting)
    await stage.turn()
    assert (stage.row().state, stage.row().reason) == ("ready", "")


@scene()
async def test_a_free_threaded_interpreter_whose_gil_is_on_is_a_warning(stage: Stage) -> None:
    stage.launcher.greeting = Greeting(
        python="3.13.1t", free_threaded=True, gil_enabled=False, commands=COMMANDS, parallelism=3.456
    )
    stage.definitions.change(pool())
    await stage.ready()
    (worker,) = stage.workers()
    assert (worker.gil, worker.python, worker.parallelism) == ("off", "3.13.1t", 3.46)
    assert stage.row().warnings == ()
    stage.processes[0].report("vitals", True, "orjson")
    await stage.turn()
    assert "the GIL is on because of orjson" in stage.row().warnings[0]
    assert stage.workers()[0].gil_culprit == "orjson"


@scene()
async def test_a_worker_gets_the_parallelism_that_another_of_its_definition_measured_without_a_gil(
    stage: Stage,
) -> None:
    stage.launcher.greeting = Greeting(
        python="3.13.1", free_threaded=True, gil_enabled=False, commands=COMMANDS, parallelism=3.456, cores=4
    )
    stage.definitions.change(pool(profile="thread", threads=8, size=2, startup_batch=2))
    await stage.ready(2)
    first, second = stage.processes
    assert (first.order.parallelism, second.order.parallelism) == (0.0, 0.0)  # none had measured
    first.die(Exit(signal=9))
    await stage.until(lambda: len(stage.processes) == 3)
    assert stage.processes[2].order.parallelism == 3.456
    await stage.ready(2)
    for one in (second, stage.processes[2]):
        one.report("vitals", True, "orjson")  # says nothing about a worker without a GIL
    await stage.turn()
    second.die(Exit(signal=9))
    await stage.until(lambda: len(stage.processes) == 4)
    assert stage.processes[3].order.parallelism == 0.0
    await stage.ready(2)
    stage.definitions.change(pool(profile="thread", threads=4, size=2, startup_batch=2))
    await stage.until(lambda: len(stage.processes) > 4)
    assert stage.processes[4].order.parallelism == 0.0  # of other threads


@scene()
async def test_races_are_reported_listed_once_and_forgotten_with_their_definition(stage: Stage) -> None:
    stage.definitions.change(pool(profile="thread", threads=2, thread_checks=True))
    await stage.ready()
    for name in ("total", "total", "counts[...]"):
        stage.processes[0].report("raced", Race(name, "slot-1", "File a", "slot-2", "File b"))
    await stage.turn()
    told = [event for event in stage.recorder.events if event.kind == "thread.race"]
    assert [event.data["attribute"] for event in told] == ["total", "total", "counts[...]"]
    assert told[0].data["second"] == {"thread": "slot-2", "stack": "File b"}
    assert stage.row().races == ("total", "counts[...]")
    assert "`total`, `counts[...]`" in stage.row().warnings[0]
    stage.definitions.change(pool(profile="thread", threads=3, thread_checks=True))
    await stage.pass_time(1.5)
    assert stage.row().races == ()


@scene()
async def test_the_import_that_switches_the_gil_on_is_an_event_and_the_factor_falls_to_one(stage: Stage) -> None:
    stage.launcher.greeting = Greeting(
        python="3.13.1", free_threaded=True, gil_enabled=False, commands=COMMANDS, parallelism=3.456, cores=4
    )
    stage.definitions.change(pool(profile="thread", threads=8))
    await stage.ready()
    assert stage.row().parallel == "8 slots, 3.5 x on 4 cores"
    for _ in range(2):
        stage.processes[0].report("vitals", True, "orjson")
        await stage.turn()
    (told,) = [event for event in stage.recorder.events if event.kind == "gil.enabled"]
    assert (told.reason, told.level) == ("import", "warning")
    assert told.data == {"culprit": "orjson", "slots": 8, "parallelism": 1.0}
    assert stage.row().parallel == "8 slots, 1.0 x: GIL on because of `orjson`"


@scene(pool())
async def test_the_recorder_gets_a_snapshot_every_second_and_events_with_the_wall_clock(stage: Stage) -> None:
    await stage.pass_time(5.05)
    assert len(stage.recorder.statuses) == 5
    assert stage.recorder.statuses[-1].pools[0].ready == 1
    assert stage.recorder.started
    assert all(at > 1.7e9 for at in stage.recorder.moments)
    assert stage.recorder.moments == sorted(stage.recorder.moments)


@scene(pool())
async def test_a_second_that_fails_does_not_end_the_housekeeping(stage: Stage) -> None:
    await stage.ready()
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    stage.recorder.trouble = RuntimeError("a bug")
    await stage.pass_time(1.1)
    assert [str(one["exception"]) for one in told] == ["a bug"]
    stage.recorder.trouble = None
    stage.definitions.change(pool(size=2))
    await stage.pass_time(1.1)
    assert stage.broker.snapshot().pools[0].size == 2, "definitions are read as before"
    assert len(told) == 1


@scene(pool())
async def test_a_worker_that_ends_while_its_stacks_are_read_leaves_what_it_said(stage: Stage) -> None:
    await stage.ready()
    (process,) = stage.processes
    read = process.stacks

    async def stacks() -> Any:
        found = await read()
        process.die(Exit(code=0))
        await stage.turn()
        return found

    process.stacks = stacks  # type: ignore[method-assign]
    dump = await stage.broker.dump("p-ab12-1", "ada", "slow")
    assert dump.threads[0].name == "python"
    assert dump.calls == ()


@scene(pool("a"), pool("b"))
async def test_a_pools_commands_and_snapshot_can_be_asked_for_alone(stage: Stage) -> None:
    await stage.ready(name="a")
    await stage.ready(name="b")
    assert next(command.name for command in stage.broker.commands("a")) == "echo"
    snapshot = stage.broker.snapshot("b")
    assert [row.name for row in snapshot.pools] == ["b"]
    assert {worker.pool for worker in snapshot.workers} == {"b"}


@scene(pool(call_timeout=1.0, cancel_grace=0.5))
async def test_a_worker_that_is_killed_for_a_hung_call_leaves_its_stacks(stage: Stage) -> None:
    await stage.ready()
    answer = stage.submit("hold")
    await stage.pass_time(1.6)
    assert answer.code == "deadline_exceeded"
    (ended,) = stage.told("worker.recycled")
    assert (ended.reason, ended.data["stacks"]) == ("overrun", "thread 40001 (python, state S)\n  wait  fake.py:1")


@scene(pool(call_timeout=1.0, cancel_grace=0.5))
async def test_a_worker_whose_stacks_cannot_be_read_is_killed_all_the_same(stage: Stage) -> None:
    await stage.ready()
    stage.launcher.processes[0].mute = True
    stage.submit("hold")
    await stage.pass_time(1.5 + STACKS_WITHIN + 0.1)
    (ended,) = stage.told("worker.recycled")
    assert ended.data["stacks"] == "not read: its threads did not answer"

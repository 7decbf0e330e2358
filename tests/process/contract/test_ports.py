"""Each port's fake and its real implementation answer to the same suite: what a fake promises, the world keeps."""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools import conf
from snakepit.pools.adapters.grpc.link import GrpcLinker
from snakepit.pools.adapters.processes import orphans, stacks
from snakepit.pools.adapters.processes.launcher import LaunchSettings, ProcessLauncher
from snakepit.pools.adapters.records.event_log import EventLog
from snakepit.pools.broker.errors import StacksUnavailable
from snakepit.pools.broker.events import Event, Kind
from snakepit.pools.broker.ports import (
    Assignment,
    Definition,
    Exit,
    ForkFailed,
    LaunchOrder,
    Payload,
    TemplateOrder,
    WorkerFailure,
)
from snakepit.pools.broker.spec import InvalidSpec, PoolSpec
from snakepit.workers.transport import FAST_PATH, SWITCHES
from snakepit.workers.transport.message_stream import PUBLIC_TURNS
from snakepit.workers.wire.worker_pb2 import Delivery
from tests.brokers import ADAPTERS, ROOT, FileDefinitions
from tests.fakes import FakeLauncher, FakeLinker, FakeProcess, FixedDefinitions, ListRecorder
from tests.memory_cgroup import MemoryCgroup, Missing, memory_cgroup
from tests.statuses import status, worker

PATIENCE = 60.0  # a bound for a machine under load, never a wait


# Launcher and Link


class ReportLog:
    """Reports as a list; `until` waits for the next of a kind."""

    def __init__(self) -> None:
        self.said: list[tuple[str, tuple[Any, ...]]] = []
        self._news = asyncio.Event()

    def __getattr__(self, kind: str) -> Callable[..., None]:
        def record(*facts: Any) -> None:
            self.said.append((kind, facts))
            self._news.set()

        return record

    def results(self, ended: Any) -> None:
        for one in ended:
            self.result(*one)

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [facts for said, facts in self.said if said == kind]

    async def until(self, kind: str, count: int = 1) -> tuple[Any, ...]:
        async with asyncio.timeout(PATIENCE):
            while len(self.of(kind)) < count:
                self._news.clear()
                await self._news.wait()
        return self.of(kind)[count - 1]


class PreparedTemplate:
    """A template process that a test controls."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.exits: list[Exit] = []
        self._spoke, self._ended = asyncio.Event(), asyncio.Event()

    async def prepare(self, launcher: Any, adapter: str, **spec: Any) -> PreparedTemplate:
        order = TemplateOrder("p-t1", ADAPTERS[adapter], PoolSpec(name="p", adapter=adapter, **spec))
        self.template = await launcher.prepare(order, self)
        return self

    def loaded(self, seconds: float) -> None:
        self.said.append(("loaded", seconds))
        self._spoke.set()

    def refused(self, reason: str, why: str) -> None:
        self.said.append((reason, why))
        self._spoke.set()

    def ended(self, exit: Exit) -> None:
        self.exits.append(exit)
        self._spoke.set()
        self._ended.set()

    async def verdict(self) -> str:
        await asyncio.wait_for(self._spoke.wait(), PATIENCE)
        return str(self.said[0][0]) if self.said else "silent"

    async def exit(self) -> Exit:
        await asyncio.wait_for(self._ended.wait(), PATIENCE)
        return self.exits[0]


class WorkerDriver:
    """One worker process that a test controls."""

    def __init__(self, launcher: Any, linker: Any, prepared: PreparedTemplate | None = None) -> None:
        self._launcher, self._linker, self._prepared = launcher, linker, prepared
        self.reports = ReportLog()
        self.exits: list[Exit] = []
        self._exited = asyncio.Event()
        self._sequence = 0

    async def start(self, adapter: str, spec: dict[str, Any]) -> WorkerDriver:
        order = LaunchOrder("p-1", ADAPTERS[adapter], PoolSpec(name="p", adapter=adapter, **spec))
        if self._prepared:
            self.process = await self._launcher.fork(self._prepared.template, order, self._on_exit)
        else:
            self.process = await self._launcher.launch(order, self._on_exit)
        self.link = self._linker.link(self.process.socket_path, self.reports)
        return self

    def _on_exit(self, exit: Exit) -> None:
        self.exits.append(exit)
        self._exited.set()

    async def exit(self) -> Exit:
        await asyncio.wait_for(self._exited.wait(), PATIENCE)
        return self.exits[0]

    def assign(self, command: str, credit: int = 0, attachments: dict[str, bytes] | None = None, **given: Any) -> int:
        self._sequence += 1
        arguments = json.dumps(given).encode()
        number = self._sequence
        self.link.assign(Assignment(number, f"c-{number}", command, arguments, attachments or {}, 60.0, credit, 2**20))
        return number

    def assign_alike(self, values: list[Any], *, command: str = "echo", name: str = "value", credit: int = 0) -> Any:
        numbers = [self._sequence + 1 + at for at in range(len(values))]
        self._sequence = numbers[-1]
        calls = [f"c-{number}" for number in numbers]
        arguments = [json.dumps({name: value}).encode() for value in values]
        first = Assignment(numbers[0], calls[0], command, arguments[0], {}, 60.0, credit, 2**20)
        self.link.assign_alike(first, calls, arguments, [60.0] * len(calls))
        return numbers

    def assign_to_reply_socket(self, reply_socket: str, value: Any) -> int:
        self._sequence += 1
        number = self._sequence
        arguments = json.dumps({"value": value}).encode()
        self.link.assign(
            Assignment(number, f"c-{number}", "echo", arguments, {}, 60.0, 0, 2**20, 0, reply_socket, 70 + number, 0.25)
        )
        return number

    def chunks(self) -> list[Any]:
        return [json.loads(payload.data) for _, payload in self.reports.of("chunk")]


@contextmanager
def subreaper() -> Iterator[None]:
    """This process adopts what is forked, as a broker does."""
    orphans.become_subreaper()
    yield
    ctypes.CDLL(None).prctl(orphans.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@contextmanager
def workplace(kind: str) -> Iterator[tuple[Any, Any]]:
    with tempfile.TemporaryDirectory(prefix="snakepit-", dir="/tmp") as home, subreaper():
        if kind == "fake":
            launcher = FakeLauncher()
            yield launcher, FakeLinker(launcher)
        else:
            yield ProcessLauncher(LaunchSettings(Path(home), "1" * 32, (str(ROOT),))), GrpcLinker()
        assert not list(Path(home).iterdir()), "the launcher left something behind"


@pytest.fixture(params=["fake", "real", "fake-forked", "real-forked", "public"])
async def start_worker(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Any]]:
    """start(adapter, **spec) starts a worker and links it; the fixture ends all of them.

    `public`: a real one, with grpclib's public API on both sides of the link.
    """
    kind, _, forked = request.param.partition("-")
    if kind == "public":
        monkeypatch.setenv(FAST_PATH, "0")
    with workplace(kind) as (launcher, linker):
        templates: dict[str, PreparedTemplate] = {}
        started: list[WorkerDriver] = []

        async def prepared(adapter: str, spec: dict[str, Any]) -> PreparedTemplate | None:
            if adapter not in templates:
                templates[adapter] = await PreparedTemplate().prepare(launcher, adapter, **spec, preload="on")
            return templates[adapter] if await templates[adapter].verdict() == "loaded" else None

        async def start(adapter: str = "everything", **spec: Any) -> WorkerDriver:
            driver = WorkerDriver(launcher, linker, await prepared(adapter, spec) if forked else None)
            await driver.start(adapter, spec)
            started.append(driver)
            return driver

        yield start
        for driver in started:
            driver.process.kill()
            await driver.exit()
            driver.link.close()
        for one in templates.values():
            one.template.dismiss()
            await one.exit()
        await launcher.close()


async def test_a_worker_greets_with_its_commands(start_worker: Any) -> None:
    driver = await start_worker()
    (greeting,) = await driver.reports.until("hello")
    commands = {command.name: command for command in greeting.commands}
    assert commands["echo"].idempotent
    assert commands["count"].streams
    assert not commands["count"].idempotent
    assert greeting.python
    assert driver.process.pid > 0


async def test_an_assignment_is_answered_with_its_result(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    first, second = driver.assign("echo", value={"a": [1, None, "é"]}), driver.assign("echo", value=2)
    await driver.reports.until("result", 2)
    answers = {number: json.loads(payload.data) for number, payload, _ in driver.reports.of("result")}
    assert answers == {first: {"a": [1, None, "é"]}, second: 2}
    assert all(seconds >= 0 for _, _, seconds in driver.reports.of("result"))


async def test_assignments_of_one_turn_that_differ_are_each_answered_in_their_order(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    wanted: list[tuple[int, Any]] = []
    for turn in range(5):
        for value in range(4):
            wanted.append((driver.assign("echo", value=[turn, value]), [turn, value]))
        wanted.append((driver.assign("says", text="x"), "x"))
        wanted.append((driver.assign("echo", attachments={"value": b"raw"}), "raw"))
        wanted.append((driver.assign("count", to=2), [0, 1]))
    await driver.reports.until("result", len(wanted))
    told = [
        (number, payload.data.decode() if payload.raw else json.loads(payload.data))
        for number, payload, _ in driver.reports.of("result")
    ]
    assert told == wanted


async def test_alike_assignments_are_answered_in_their_order_whatever_came_before_them(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    wanted: list[tuple[int, Any]] = []
    for turn in range(3):
        wanted.append((driver.assign("echo", value=turn), turn))
        values = [[turn, number] for number in range(5)]
        wanted += zip(driver.assign_alike(values), values, strict=True)
        wanted.append((driver.assign("echo", attachments={"value": b"raw"}), "raw"))
        wanted += zip(driver.assign_alike(values[:1]), values[:1], strict=True)
    await driver.reports.until("result", len(wanted))
    told = [
        (number, "raw" if payload.raw else json.loads(payload.data))
        for number, payload, _ in driver.reports.of("result")
    ]
    assert told == wanted


async def test_a_cancel_behind_assignments_of_the_same_turn_reaches_its_call_alone(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    held = driver.assign("count", credit=1, to=1000)
    await driver.reports.until("chunk")
    first, second = driver.assign("echo", value=1), driver.assign("echo", value=2)
    driver.link.cancel(first, "cancelled")
    third = driver.assign("echo", value=3)
    driver.link.cancel(held, "cancelled")
    await driver.reports.until("result", 2)
    assert [number for number, _, _ in driver.reports.of("result")] == [second, third]
    assert sorted(number for number, _, _ in driver.reports.of("failure")) == [held, first]


async def test_a_result_goes_into_the_reply_socket_that_its_assignment_names(start_worker: Any, tmp_path: Path) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reply_socket:
        reply_socket.bind(str(tmp_path / "l"))
        first = driver.assign_to_reply_socket(str(tmp_path / "l"), "é")
        second = driver.assign("echo", value="usual")
        assert await driver.reports.until("delivered") == (first, driver.reports.of("delivered")[0][1])
        delivery = Delivery.FromString(reply_socket.recv(65_536))
    assert (delivery.ref, json.loads(delivery.json), delivery.call, delivery.worker) == (71, "é", "c-1", "p-1")
    assert delivery.queued_seconds == 0.25
    assert delivery.run_seconds == driver.reports.of("delivered")[0][1]
    assert (await driver.reports.until("result"))[0] == second


async def test_a_result_that_no_reply_socket_takes_goes_through_the_broker(start_worker: Any, tmp_path: Path) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    number = driver.assign_to_reply_socket(str(tmp_path / "nobody"), [1])
    sequence, payload, _ = await driver.reports.until("result")
    assert (sequence, json.loads(payload.data)) == (number, [1])
    assert not driver.reports.of("delivered")


async def test_bytes_come_back_as_raw_bytes(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    driver.assign("echo", attachments={"value": b"\0\xff"})
    _, payload, _ = await driver.reports.until("result")
    assert payload == Payload(b"\0\xff", raw=True)


async def test_an_unknown_command_and_a_raising_one_are_failures_with_their_codes(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    unknown = driver.assign("no_such_command")
    raising = driver.assign("raises", text="gone fishing")
    await driver.reports.until("failure", 2)
    failures = {number: failure for number, failure, _ in driver.reports.of("failure")}
    assert failures[unknown].code == "command_unknown"
    assert "no_such_command" in failures[unknown].message
    assert (failures[raising].code, failures[raising].message) == ("adapter_error", "LookupError: gone fishing")
    assert failures[raising].type.endswith("LookupError")
    assert "in raises" in failures[raising].traceback


async def test_a_stream_never_has_more_chunks_than_credit_and_credit_releases_more(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    number = driver.assign("count", credit=2, to=5)
    await driver.reports.until("chunk", 2)
    driver.link.probe()  # its answer comes after whatever was sent before it
    await driver.reports.until("vitals")
    assert driver.chunks() == [0, 1]
    driver.link.credit(number, 2)
    await driver.reports.until("chunk", 4)
    driver.link.probe()
    await driver.reports.until("vitals", 2)
    assert driver.chunks() == [0, 1, 2, 3]
    assert not driver.reports.of("result")
    driver.link.credit(number, 5)
    ended, payload, _ = await driver.reports.until("result")
    assert (ended, payload) == (number, None)
    assert driver.chunks() == [0, 1, 2, 3, 4]


async def test_each_of_alike_assignments_has_its_credit(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    first, second = driver.assign_alike([2, 3], command="count", name="to", credit=8)
    await driver.reports.until("result", 2)
    assert [number for number, _ in driver.reports.of("chunk")] == [first] * 2 + [second] * 3
    assert driver.chunks() == [0, 1, 0, 1, 2]


async def test_a_streaming_command_without_credit_gives_one_list(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    driver.assign("count", to=3)
    _, payload, _ = await driver.reports.until("result")
    assert json.loads(payload.data) == [0, 1, 2]
    assert not driver.reports.of("chunk")


async def test_a_cancelled_call_ends_with_the_failure_cancelled(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    number = driver.assign("obedient")
    driver.link.cancel(number, "cancelled")
    ended, failure, _ = await driver.reports.until("failure")
    assert (ended, failure.code) == (number, "cancelled")
    driver.assign("echo", value=1)
    await driver.reports.until("result")


async def test_a_cancelled_stream_that_waits_for_credit_ends(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    number = driver.assign("count", credit=1, to=1000)
    await driver.reports.until("chunk")
    driver.link.cancel(number, "deadline_exceeded")
    ended, failure, _ = await driver.reports.until("failure")
    assert (ended, failure.code) == (number, "deadline_exceeded")
    assert driver.chunks() == [0]


async def test_progress_and_log_lines_are_reported(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    stream = driver.assign("count", credit=4, to=2)
    await driver.reports.until("result")
    progress = driver.reports.of("progress")
    assert progress
    assert all(number == stream and 0 <= fraction <= 1 for number, fraction, _ in progress)
    logging_call = driver.assign("says", text="hello")
    assert await driver.reports.until("log") == (logging_call, "hello")


async def test_a_probe_is_answered_with_vitals(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    driver.link.probe()
    gil_enabled, culprit = await driver.reports.until("vitals")
    assert (gil_enabled, culprit) == (True, "")


async def test_a_drained_worker_leaves_with_exit_code_0(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    driver.link.drain()
    assert await driver.exit() == Exit(code=0)


@pytest.fixture
def small_group() -> Iterator[MemoryCgroup]:
    try:
        with memory_cgroup(100) as group:
            yield group
    except Missing as why:
        pytest.skip(str(why))


async def test_a_death_by_the_limit_of_a_memory_cgroup_has_its_own_reason(
    start_worker: Any, small_group: MemoryCgroup
) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    if isinstance(driver.process, FakeProcess):
        driver.process.die(Exit(signal=9, out_of_memory=True))
    else:
        small_group.add(driver.process.pid)
        driver.process.memory_mb()  # the broker reads it again and again, and then notes the group
        driver.assign("leaks", megabytes=400)
    assert await driver.exit() == Exit(signal=9, out_of_memory=True)


async def test_a_killed_worker_is_reported_once_and_its_link_is_lost(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    driver.process.kill()
    driver.process.kill()
    assert await driver.exit() == Exit(signal=9)
    await driver.reports.until("lost")
    driver.process.kill()  # of a dead one: harmless
    await asyncio.sleep(0)
    assert len(driver.exits) == 1
    assert len(driver.reports.of("lost")) == 1
    assert driver.process.memory_mb() is None
    assert driver.process.cpu_seconds() is None


async def test_the_answers_of_a_killed_worker_are_heard_also_when_an_order_is_written_to_it_first() -> None:
    """A busy broker: it looks into the socket only after the worker is dead, and has an order for it before that."""
    with workplace("real") as (launcher, linker):
        driver = await WorkerDriver(launcher, linker).start("everything", {})
        await driver.reports.until("hello")
        for _ in range(20):
            driver.assign("sleep", seconds=0)  # not idempotent: its answer is sent before the next call begins
        last = driver.assign("count", credit=1, to=9)  # stays, for want of credit
        for _ in range(PUBLIC_TURNS + 1):
            await asyncio.sleep(0)  # the orders are sent; from here on the loop stands still
        end = time.monotonic() + PATIENCE
        while driver.process.last_begun() < last:
            assert time.monotonic() < end, "the worker does not come to its last call"
        driver.process.kill()
        os.waitid(os.P_PID, driver.process.pid, os.WEXITED | os.WNOWAIT)
        driver.assign("echo", value="nobody is there")
        await driver.reports.until("lost")
        assert [sequence for sequence, *_ in driver.reports.of("result")] == list(range(1, 21))
        await driver.exit()
        driver.link.close()
        await launcher.close()


async def test_a_worker_that_leaves_many_files_is_gone_before_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    told, removed = threading.Event(), asyncio.Event()
    loop, remove = asyncio.get_running_loop(), shutil.rmtree

    def slow(path: Path, **more: Any) -> None:
        assert told.wait(PATIENCE), "the broker waits for the files of a worker that has ended"
        remove(path, **more)
        loop.call_soon_threadsafe(removed.set)

    with workplace("real") as (launcher, linker):
        driver = await WorkerDriver(launcher, linker).start("everything", {})
        await driver.reports.until("hello")
        scratch = driver.process._scratch
        (scratch / "one").write_text("left behind")
        monkeypatch.setattr(shutil, "rmtree", slow)
        driver.process.kill()
        await driver.exit()
        told.set()
        await asyncio.wait_for(removed.wait(), PATIENCE)
        assert not scratch.exists()
        monkeypatch.undo()
        driver.link.close()
        await launcher.close()


async def test_a_closed_link_reports_nothing_more(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    said = len(driver.reports.said)
    driver.link.probe()
    driver.link.close()
    driver.link.close()
    driver.link.probe()
    driver.process.kill()
    await driver.exit()
    assert len(driver.reports.said) == said


@pytest.mark.parametrize(("adapter", "words"), [("fails", "model file is missing"), ("missing", "no_such_module")])
async def test_an_adapter_that_cannot_load_is_a_boot_failure_and_exit_code_3(
    start_worker: Any, adapter: str, words: str
) -> None:
    driver = await start_worker(adapter)
    (failure,) = await driver.reports.until("boot_failed")
    assert isinstance(failure, WorkerFailure)
    assert words in failure.message
    assert await driver.exit() == Exit(code=3)
    assert not driver.reports.of("hello")


async def test_what_was_begun_is_known_after_a_kill(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    driver.assign("echo", value=1)
    await driver.reports.until("result")
    assert driver.process.last_begun() == 1
    driver.assign("count", credit=1, to=9)
    await driver.reports.until("chunk")
    driver.process.kill()
    await driver.exit()
    assert driver.process.last_begun() == 2


async def test_revoked_calls_are_never_begun_and_come_back(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    driver.assign("count", credit=1, to=9)  # keeps the slot, for want of credit
    await driver.reports.until("chunk")
    for value in (1, 2):
        driver.assign("echo", value=value)
    driver.process.revoke(2, 3)
    assert [driver.process.has_begun(number) for number in (1, 2, 3)] == [True, False, False]
    driver.link.cancel(1, "cancelled")
    await driver.reports.until("revoked", 2)
    assert driver.reports.of("revoked") == [(2,), (3,)]
    driver.assign("echo", value=3)
    sequence, payload, _ = await driver.reports.until("result")
    assert (sequence, json.loads(payload.data)) == (4, 3)
    driver.process.kill()
    await driver.exit()
    assert [driver.process.has_begun(number) for number in (1, 2, 3, 4, 5)] == [True, False, False, True, False]


async def test_nothing_is_begun_by_a_worker_that_only_started(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    driver.process.kill()
    await driver.exit()
    assert driver.process.last_begun() == 0


async def test_printed_lines_are_kept_also_after_the_end(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    driver.assign("prints", text="something went by", times=3)
    await driver.reports.until("result")
    driver.link.drain()
    await driver.exit()
    assert list(driver.process.output())[-3:] == ["something went by"] * 3


async def test_memory_and_cpu_time_are_measured_while_the_worker_lives(start_worker: Any) -> None:
    driver = await start_worker()
    await driver.reports.until("hello")
    assert 1 < driver.process.memory_mb() < 2000
    assert 0 <= driver.process.cpu_seconds() < 1000  # one that was forked has hardly begun


async def test_stacks_are_read_while_the_worker_lives_and_refused_afterwards(
    start_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in ("TIMEOUT", "THREAD_TIMEOUT"):  # a thread of a machine that stands still answers later
        monkeypatch.setattr(stacks, bound, PATIENCE)
    driver = await start_worker()
    await driver.reports.until("hello")
    for _ in range(2):
        threads = await driver.process.stacks()
        assert threads[0].thread == driver.process.pid
        assert threads[0].frames
        assert all(frame.file and frame.function for frame in threads[0].frames)
    driver.process.kill()
    await driver.exit()
    with pytest.raises(StacksUnavailable):
        await driver.process.stacks()


async def test_a_launch_that_is_not_possible_raises_and_leaves_nothing(start_worker: Any) -> None:
    with pytest.raises(OSError, match="/no/such/python"):
        await start_worker(python="/no/such/python")


async def test_a_worker_gets_the_switches_of_the_transport_from_its_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    for switch in SWITCHES:
        monkeypatch.setenv(switch, "0")
    monkeypatch.setenv("SNAKEPIT_SECRET", "stays here")
    with workplace("real") as (launcher, linker):
        driver = await WorkerDriver(launcher, linker).start("everything", {})
        await driver.reports.until("hello")
        environment = Path(f"/proc/{driver.process.pid}/environ").read_bytes().split(b"\0")
        assert {f"{switch}=0".encode() for switch in SWITCHES} <= set(environment)
        assert b"SNAKEPIT_SECRET=stays here" not in environment
        driver.process.kill()
        await driver.exit()
        driver.link.close()
        await launcher.close()


async def test_two_workers_do_not_hear_each_other(start_worker: Any) -> None:
    one, two = await start_worker(), await start_worker()
    await one.reports.until("hello")
    await two.reports.until("hello")
    one.process.kill()
    await one.exit()
    two.assign("echo", value="alive")
    _, payload, _ = await two.reports.until("result")
    assert json.loads(payload.data) == "alive"
    assert not two.exits


# Templates


@pytest.fixture(params=["fake", "real"])
async def launcher(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    with workplace(request.param) as (launcher, _):
        yield launcher
        await launcher.close()


@pytest.mark.parametrize(
    ("adapter", "preload", "verdict", "words"),
    [
        ("everything", "auto", "no_preload", "Everything has no preload()"),
        ("everything", "on", "loaded", ""),
        ("preloading", "auto", "loaded", ""),
        ("thread_in_preload", "auto", "unsafe", "'ticker'"),
        ("raises_in_preload", "auto", "load_failed", "RuntimeError: the weights are missing"),
        ("missing", "auto", "load_failed", "no_such_module"),
    ],
)
async def test_a_template_reports_whether_it_can_be_forked(
    launcher: Any, adapter: str, preload: str, verdict: str, words: str
) -> None:
    prepared = await PreparedTemplate().prepare(launcher, adapter, preload=preload)
    assert await prepared.verdict() == verdict
    assert words in str(prepared.said[0][1])
    if verdict == "loaded":
        assert prepared.template.pid > 0
        assert prepared.template.memory_mb() > 1
        prepared.template.dismiss()
        assert await prepared.exit() == Exit(code=0)
    else:
        assert await prepared.exit() == Exit(code=3), "it ends by itself"
    assert prepared.template.memory_mb() is None
    assert len(prepared.said) == 1


async def test_a_killed_template_is_reported_once_and_forks_nothing_more(launcher: Any) -> None:
    prepared = await PreparedTemplate().prepare(launcher, "everything", preload="on")
    await prepared.verdict()
    prepared.template.kill()
    prepared.template.kill()
    assert await prepared.exit() == Exit(signal=9)
    order = LaunchOrder("p-1", ADAPTERS["everything"], PoolSpec(name="p", adapter="everything"))
    with pytest.raises(ForkFailed):
        await launcher.fork(prepared.template, order, lambda exit: None)
    prepared.template.dismiss()
    await asyncio.sleep(0)
    assert len(prepared.exits) == 1


async def test_a_template_that_cannot_be_started_raises_and_leaves_nothing(launcher: Any) -> None:
    with pytest.raises(OSError, match="/no/such/python"):
        await PreparedTemplate().prepare(launcher, "everything", python="/no/such/python")


async def test_a_template_that_is_dismissed_while_it_loads_ends(launcher: Any) -> None:
    prepared = await PreparedTemplate().prepare(launcher, "slow", preload="on", args={"path": "/dev/null"})
    prepared.template.dismiss()
    assert (await prepared.exit()).code != 3


async def test_a_template_that_does_not_fork_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snakepit.pools.adapters.processes.template_process.FORK_SECONDS", 0.2)
    with workplace("real") as (launcher, _):
        prepared = await PreparedTemplate().prepare(launcher, "everything", preload="on")
        await prepared.verdict()
        os.kill(prepared.template.pid, signal.SIGSTOP)
        order = LaunchOrder("p-1", ADAPTERS["everything"], PoolSpec(name="p", adapter="everything"))
        with pytest.raises(ForkFailed, match=r"did not fork within 0\.2 s"):
            await launcher.fork(prepared.template, order, lambda exit: None)
        assert await prepared.exit() == Exit(signal=9)
        await launcher.close()


# What only the real launcher has: leftovers of the one before.


def test_a_launcher_clears_what_a_killed_broker_left_and_links_the_present_package(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "snakepit").symlink_to(tmp_path / "an-old-installation")
    (tmp_path / "tmp" / "p-0000-1").mkdir(parents=True)
    (tmp_path / "tmp" / "p-0000-1" / "big").write_text("left")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "7").touch()
    launcher = ProcessLauncher(LaunchSettings(tmp_path, "1" * 32))
    assert (tmp_path / "lib" / "snakepit" / "workers" / "__main__.py").exists()
    assert not list((tmp_path / "tmp").iterdir())
    assert not list((tmp_path / "w").iterdir())
    asyncio.run(launcher.close())
    assert not list(tmp_path.iterdir())


# Recorder


class Books:
    """A recorder, and a way to read what it wrote once it is stopped."""

    def __init__(self, recorder: Any, events: Callable[[], list[str]], workers: Callable[[], set[str]]) -> None:
        self.recorder, self.events, self.workers = recorder, events, workers


IN_DATABASE = pytest.param("database", marks=pytest.mark.django_db(transaction=True))


@pytest.fixture(params=["list", "log", IN_DATABASE])
def books(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Books]:
    if request.param == "database":
        from snakepit.pools.adapters.records.recorder import DatabaseRecorder
        from snakepit.pools.models import Event as Row
        from snakepit.pools.models import Worker

        recorder = DatabaseRecorder("node-1", pause=0.01)
        monkeypatch.setattr(recorder, "stop", partial(recorder.stop, PATIENCE))  # a broker that ends waits less
        yield Books(
            recorder,
            lambda: list(Row.objects.order_by("pk").values_list("message", flat=True)),
            lambda: set(Worker.objects.values_list("worker_id", flat=True)),
        )
        recorder.stop()
        return
    kept = ListRecorder()
    yield Books(
        EventLog(kept) if request.param == "log" else kept,
        lambda: [event.message for event in kept.events],
        lambda: {worker.id for worker in kept.statuses[-1].workers},
    )


STATUS = status(workers=[worker("p-1")])


def test_a_recorder_keeps_the_order_and_stop_writes_what_is_left(books: Books) -> None:
    books.recorder.start()
    for number in range(1200):
        books.recorder.record(1e9 + number, Event(Kind.WORKER_STARTED, "p", "p-1", message=f"event {number}"))
    books.recorder.observe(STATUS)
    books.recorder.stop()
    assert books.events() == [f"event {number}" for number in range(1200)]
    assert books.workers() == {"p-1"}


def test_a_recorder_raises_for_no_event(books: Books, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    awkward = [
        Event(
            Kind.WORKER_DIED, "p", "p-1", message="a NUL \0, a lone surrogate \ud800, %s %d", data={"x": float("nan")}
        ),
        Event(Kind.WORKER_DIED, "p" * 500, "w" * 500, "r" * 500, "m" * 100_000, level="loud"),
        Event(Kind.WORKER_DIED, data={"what": object(), "deep": {"a": [b"\0", {1, 2}]}}),
        Event("nobody.knows", message="an unknown kind"),  # type: ignore[arg-type]
    ]
    books.recorder.record(1e9, Event(Kind.NODE_STARTED, message="before its start"))
    books.recorder.start()
    for event in awkward:
        books.recorder.record(1e9, event)
    books.recorder.observe(status())
    books.recorder.record(1e9, Event(Kind.NODE_STOPPING, message="the last"))
    books.recorder.stop()
    books.recorder.record(1e9, Event(Kind.NODE_STOPPING, message="too late"))
    books.recorder.observe(STATUS)
    told = books.events()
    assert told[0] == "before its start"
    assert len(told) >= 6
    assert "the last" in told


def test_a_recorder_may_be_stopped_twice(books: Books) -> None:
    books.recorder.start()
    books.recorder.record(1e9, Event(Kind.NODE_STARTED, message="once"))
    books.recorder.stop()
    books.recorder.stop()
    assert books.events() == ["once"]


def test_a_recorder_that_was_never_started_may_be_stopped(books: Books) -> None:
    books.recorder.stop()
    assert books.events() == []


def test_the_event_log_writes_a_line_with_its_keys(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="snakepit.events")
    log = EventLog(ListRecorder())
    log.record(1.0, Event(Kind.WORKER_DIED, "p", "p-1", "crash", "died at work", level="error"))
    log.record(2.0, Event(Kind.NODE_STARTED))
    died, started = caplog.records
    assert died.getMessage() == "p-1: died at work"
    assert (died.levelname, died.action, died.pool, died.reason) == ("ERROR", "worker.died", "p", "crash")  # type: ignore[attr-defined]
    assert started.getMessage() == "node: node.started"


def test_a_reason_cannot_forge_a_line_of_the_event_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="snakepit.events")
    message = "ada: pause: lunch\r\n2026-01-01 ERROR forged\x1b[2J"
    EventLog(ListRecorder()).record(1.0, Event(Kind.OPERATOR_ACTED, "p\n", "", "pause", message))
    (record,) = caplog.records
    assert record.getMessage() == r"p\n: ada: pause: lunch\r\n2026-01-01 ERROR forged\x1b[2J"


# Definitions


class Wanted:
    """A source of definitions; `want` writes pools as plain fields into whatever lies behind it."""

    def __init__(self, source: Any, want: Callable[[dict[str, dict[str, Any]]], None]) -> None:
        self.source, self.want = source, want


@pytest.fixture(params=["fixed", "file", IN_DATABASE])
def wanted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Wanted]:
    if request.param == "fixed":
        yield _fixed()
    elif request.param == "file":
        path = tmp_path / "pools.json"
        path.write_text("{}")
        yield Wanted(FileDefinitions(path), lambda pools: _replace(path, json.dumps(pools)))
    else:
        settings = request.getfixturevalue("settings")
        settings.SNAKEPIT = {"ADAPTERS": ADAPTERS, "NODE_NAME": "node-1"}
        conf.forget()
        yield _database()
        conf.forget()


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)


def _fixed() -> Wanted:
    source = FixedDefinitions()

    def want(pools: dict[str, dict[str, Any]]) -> None:
        definitions, problems = [], []
        for name, fields in pools.items():
            try:
                spec = PoolSpec(**{"adapter": "everything", **fields, "name": name})
                definitions.append(Definition(spec, ADAPTERS[spec.adapter]))
            except InvalidSpec as error:
                problems.append((name, str(error)))
        source.change(*definitions, problems=tuple(problems))

    return Wanted(source, want)


def _database() -> Wanted:
    from snakepit.pools.adapters.records.definitions import DatabaseDefinitions
    from snakepit.pools.models import Pool

    def want(pools: dict[str, dict[str, Any]]) -> None:
        Pool.objects.exclude(name__in=pools).delete()
        for name, fields in pools.items():
            Pool.objects.update_or_create(name=name, defaults={"adapter": "everything", **fields})

    return Wanted(DatabaseDefinitions(), want)


def test_a_definition_is_loaded_with_the_path_of_its_adapter(wanted: Wanted) -> None:
    wanted.want({"a": {"size": 3, "profile": "thread"}, "b": {"adapter": "digits", "enabled": False}})
    loaded = wanted.source.load()
    specs = {definition.spec.name: definition for definition in loaded.definitions}
    assert (specs["a"].spec.size, specs["a"].spec.slots) == (3, 10)
    assert specs["a"].adapter_path == "tests.everything.Everything"
    assert specs["b"].adapter_path == "snakepit.examples.digits.Digits"
    assert not specs["b"].spec.enabled
    assert loaded.problems == ()


def test_the_same_definition_loaded_twice_is_equal(wanted: Wanted) -> None:
    wanted.want({"a": {"args": {"recent": "x"}, "env": {"OMP_NUM_THREADS": "1"}}})
    assert wanted.source.load() == wanted.source.load()


def test_a_bad_definition_is_a_problem_and_the_others_are_loaded(wanted: Wanted) -> None:
    wanted.want({"good": {"size": 1}, "bad": {"env": {"A": 5}}})
    loaded = wanted.source.load()
    assert [definition.spec.name for definition in loaded.definitions] == ["good"]
    ((name, problem),) = loaded.problems
    assert name == "bad"
    assert problem == "env: the value of A must be a string"


def test_a_change_is_seen_by_the_next_load(wanted: Wanted) -> None:
    wanted.want({"a": {"size": 1}})
    wanted.source.load()
    wanted.want({"a": {"size": 2}, "b": {"size": 2}})
    loaded = wanted.source.load()
    assert {definition.spec.name: definition.spec.size for definition in loaded.definitions} == {"a": 2, "b": 2}
    wanted.want({})
    assert wanted.source.load().definitions == ()

"""What a process uses: both ways to read it, from `/proc` and through psutil, keep the same contract."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from snakepit.pools.adapters.processes import vitals
from snakepit.pools.adapters.processes.buffer_memory import unseen_kb
from snakepit.pools.adapters.processes.vitals import MAX_SKIPPED, ProcessVitals, ProcVitals, PsutilVitals, vitals_of
from snakepit.workers.buffers import Incoming, Outgoing
from snakepit.workers.memory_file import are_possible

SHARED = 30.0  # MiB by which the share of a process grows and shrinks, as others of this program come and go
CHILD = """
import os, signal, sys
held, started = [], []
for line in sys.stdin:
    if line == "take\\n":
        held.append(b"x" * 100 * 2**20)
    elif line == "give\\n":
        held.clear()
    elif line == "start\\n":
        ready, told = os.pipe()
        started.append(os.fork())
        if not started[-1]:
            own = b"y" * 100 * 2**20
            os.write(told, b".")
            signal.pause()
        os.read(ready, 1)
    elif line == "end\\n":
        os.kill(started[-1], signal.SIGKILL)
        os.waitpid(started.pop(), 0)
    elif line == "work\\n":
        sum(number * number for number in range(3_000_000))
    print("done", flush=True)
"""


class Told:
    """A process that follows orders, and what is read of it."""

    def __init__(self, process: subprocess.Popen[str], vitals: ProcessVitals) -> None:
        self.process = process
        self.vitals = vitals

    def to(self, order: str) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def memory(self) -> float:
        found = self.vitals.memory_mb()
        assert found is not None
        return found


class Readings:
    """Counts the readings of proportional memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._read = vitals.proportional_kb
        monkeypatch.setattr(vitals, "proportional_kb", self._counted)

    def _counted(self, pid: int) -> int | None:
        self.count += 1
        return self._read(pid)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


@pytest.fixture(params=[ProcVitals, PsutilVitals])
def told(request: pytest.FixtureRequest, child: subprocess.Popen[str]) -> Told:
    made = Told(child, request.param(child.pid))
    made.to("begin")
    return made


@pytest.fixture
def read_from_proc(child: subprocess.Popen[str]) -> Told:
    made = ProcVitals(child.pid)
    made._skipped = -1  # otherwise the number of the process would decide which reading is the eighth
    told = Told(child, made)
    told.to("begin")
    return told


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Readings:
    return Readings(monkeypatch)


def test_sweeps_read_proc_where_there_is_one() -> None:
    assert isinstance(vitals_of(1), ProcVitals)


def test_sweeps_use_psutil_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert isinstance(vitals_of(1), PsutilVitals)


def test_memory_follows_what_the_process_takes_and_gives_back(told: Told) -> None:
    before = told.memory()
    told.to("take")
    assert 100 - SHARED < told.memory() - before < 100 + SHARED
    told.to("give")
    assert told.memory() - before < SHARED


def test_memory_counts_children(told: Told) -> None:
    before = told.memory()
    told.to("start")
    assert told.memory() - before > 100 - SHARED
    told.to("end")
    assert told.memory() - before < SHARED


def test_resident_memory_counts_where_the_system_shows_no_more(
    child: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(process: psutil.Process) -> None:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "memory_full_info", denied)
    told = Told(child, PsutilVitals(child.pid))
    told.to("begin")
    before = told.memory()
    told.to("take")
    assert 100 - SHARED < told.memory() - before < 100 + SHARED


def test_memory_is_read_again_only_where_pages_were_taken_or_given_back(
    read_from_proc: Told, readings: Readings
) -> None:
    read_from_proc.memory()
    read_from_proc.to("take")
    read_from_proc.memory()
    assert readings.count == 2
    read_from_proc.to("give")
    read_from_proc.memory()
    assert readings.count == 3


def test_memory_of_a_process_that_does_nothing_is_read_at_every_eighth_look(
    read_from_proc: Told, readings: Readings
) -> None:
    read = [read_from_proc.memory()]
    assert readings.count == 1
    read += [read_from_proc.memory() for _ in range(MAX_SKIPPED - 1)]
    assert readings.count == 1
    read.append(read_from_proc.memory())
    assert readings.count == 2
    assert len({*read[:-1]}) == 1


def test_a_child_that_came_or_went_is_read_at_the_next_look(read_from_proc: Told, readings: Readings) -> None:
    read_from_proc.memory()
    read_from_proc.to("start")
    read_from_proc.memory()
    read_from_proc.to("end")
    read_from_proc.memory()
    assert readings.count == 1 + 2 + 1


def test_cpu_time_grows_with_work_and_keeps_that_of_children_that_ended(told: Told) -> None:
    before = told.vitals.cpu_seconds()
    assert before is not None
    told.to("work")
    worked = told.vitals.cpu_seconds()
    assert worked is not None
    assert worked > before
    told.to("start")
    told.to("end")
    assert (told.vitals.cpu_seconds() or 0) >= worked


def test_a_process_that_is_gone_has_no_vitals(told: Told) -> None:
    told.memory()
    told.process.kill()
    told.process.wait()
    assert told.vitals.memory_mb() is None
    assert told.vitals.cpu_seconds() is None


@pytest.mark.skipif(not are_possible(), reason="this system has no sealed memory files")
def test_a_memory_file_counts_until_its_pages_are_in_the_proportional_memory() -> None:
    gc.collect()  # else a file of an earlier test could end below
    before = unseen_kb(os.getpid())
    outgoing = Outgoing(10**8)
    part = outgoing.add(b"x" * 20_000_000)
    assert unseen_kb(os.getpid()) - before == pytest.approx(20_000_000 / 1024, rel=0.01)
    incoming = Incoming([os.dup(one) for one in outgoing.seal()])
    outgoing.close()
    view = incoming.view(part)
    assert unseen_kb(os.getpid()) - before == pytest.approx(20_000_000 / 1024, rel=0.01)
    incoming.close()
    assert sum(view[::4096]) > 0
    assert unseen_kb(os.getpid()) - before < 1000
    del view


def test_a_process_that_has_ended_holds_no_memory_files() -> None:
    assert unseen_kb(2**22 + 1) == 0

"""What a process uses, read from the kernel: of a real one that does as it is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from snakepit.pools.adapters.processes import vitals
from snakepit.pools.adapters.processes.vitals import LOOKS, Vitals

CHILD = """
import os, signal, sys
held, started = [], []
for line in sys.stdin:
    if line == "take\\n":
        held.append(b"x" * 20 * 2**20)
    elif line == "give\\n":
        held.clear()
    elif line == "start\\n":
        ready, told = os.pipe()
        started.append(os.fork())
        if not started[-1]:
            own = b"y" * 30 * 2**20
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
    """A process that does as it is told, and what is read of it."""

    def __init__(self, process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.process = process
        self.readings = 0
        self.vitals = Vitals(process.pid)
        self.vitals._looks = -1  # which number its pid has would count
        read = vitals.proportional_kb

        def counted(pid: int) -> int | None:
            self.readings += 1
            return read(pid)

        monkeypatch.setattr(vitals, "proportional_kb", counted)

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


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        made = Told(process, monkeypatch)
        made.to("begin")
        yield made
        process.kill()


def test_memory_is_read_anew_where_pages_were_taken_or_given_back(told: Told) -> None:
    before = told.memory()
    told.to("take")
    assert 15 < told.memory() - before < 40
    assert told.readings == 2
    told.to("give")
    assert told.memory() - before < 15
    assert told.readings == 3


def test_memory_of_a_process_that_does_nothing_is_read_at_every_eighth_look(told: Told) -> None:
    read = [told.memory()]
    assert told.readings == 1
    read += [told.memory() for _ in range(LOOKS - 1)]
    assert told.readings == 1
    read.append(told.memory())
    assert told.readings == 2
    assert len({*read[:-1]}) == 1


def test_a_child_that_came_or_went_counts_at_once(told: Told) -> None:
    before = told.memory()
    told.to("start")
    assert told.memory() - before > 25
    told.to("end")
    assert told.memory() - before < 15
    assert told.readings == 1 + 2 + 1


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

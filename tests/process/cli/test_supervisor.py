"""The supervisor with real, tiny children."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snakepit.pools.cli import supervisor
from snakepit.pools.cli.supervisor import Child, Program, Supervisor

ROOT = Path(__file__).parents[3]


def python(name: str, code: str, **more: object) -> Program:
    return Program(name, [sys.executable, "-c", code], **more)  # type: ignore[arg-type]


PATIENCE = 60.0  # a bound for a machine under load, never a wait
WAITS = "import time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def family(output: io.StringIO) -> Iterator[Supervisor]:
    with Supervisor(output) as family:
        yield family


def wait_for(question: Callable[[], str]) -> str:
    deadline = time.monotonic() + PATIENCE
    while not (answer := question()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return answer


def wait_for_line(child: Child, line: str = "up") -> None:
    wait_for(lambda: line if line in list(child.lines) else "")


def test_a_child_that_dies_is_an_event_with_its_last_words(family: Supervisor, output: io.StringIO) -> None:
    child = family.start(python("bad", "print('one'); print('two'); raise SystemExit(7)"))
    event = family.next(PATIENCE)
    assert event is not None
    assert (event.kind, event.child) == ("exit", child)
    assert child.exit_report() == "bad ended (exit code 7); its last lines:\n  one\n  two"
    assert output.getvalue() == "bad     | one\nbad     | two\n"


def test_a_child_that_was_killed_names_the_signal(family: Supervisor) -> None:
    child = family.start(python("gone", WAITS))
    wait_for_line(child)
    child.signal(signal.SIGKILL)
    assert family.next(PATIENCE) is not None
    assert "killed by SIGKILL" in child.exit_report()


def test_a_program_that_is_not_there_is_said(family: Supervisor) -> None:
    child = family.start(Program("none", ["/no/such/program"]))
    assert family.next(PATIENCE) is not None
    assert "No such file" in child.exit_report()


def test_children_are_stopped_the_youngest_first(family: Supervisor) -> None:
    children = [family.start(python(name, WAITS)) for name in ("first", "second", "third")]
    for child in children:
        wait_for_line(child)
    family.stop(within=PATIENCE)  # each has its time, also where the machine stops for some seconds
    ended = [family.next(PATIENCE) for _ in children]
    assert [event.child for event in ended if event] == children[::-1]
    assert all(not child.alive for child in children)


def test_a_child_that_ignores_sigterm_is_killed_in_time(family: Supervisor) -> None:
    deaf = family.start(python("deaf", DEAF, patience=0.2))
    polite = family.start(python("polite", WAITS, patience=PATIENCE))
    wait_for_line(deaf)
    wait_for_line(polite)
    family.stop(within=1.0)
    assert deaf.process.returncode == -signal.SIGKILL
    assert polite.process.returncode == -signal.SIGTERM


def test_what_a_child_has_started_ends_with_it(family: Supervisor, tmp_path: Path) -> None:
    code = f"import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', {WAITS!r}]); print(p.pid)"
    child = family.start(python("parent", code + "; sys.stdout.flush(); time.sleep(600)"))
    wait_for_line(child)
    grandchild = int(wait_for(lambda: next((line for line in child.lines if line.isdigit()), "")))
    family.stop()
    deadline = time.monotonic() + PATIENCE
    while running(grandchild):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_the_lines_of_children_keep_their_name_and_order(family: Supervisor, output: io.StringIO) -> None:
    for name in ("left", "right"):
        family.start(python(name, "for n in range(200): print(n, flush=True)"))
    assert [event.kind for event in (family.next(PATIENCE), family.next(PATIENCE)) if event] == ["exit", "exit"]
    lines = output.getvalue().splitlines()
    for name in ("left", "right"):
        assert [line for line in lines if line.startswith(name)] == [f"{name:<7} | {n}" for n in range(200)]
    assert len(lines) == 400


def test_signals_become_events_and_a_later_one_hurries(family: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "ONE_STOP", 3600.0)  # the second one comes before, however slow the machine is
    before = signal.getsignal(signal.SIGTERM)
    with family.signals():
        os.kill(os.getpid(), signal.SIGTERM)
        event = family.next(PATIENCE)
        assert event is not None
        assert (event.kind, event.value, family.hurried) == ("stop", "SIGTERM", False)
        os.kill(os.getpid(), signal.SIGTERM)
        assert family.next(PATIENCE)
        assert not family.hurried
        monkeypatch.setattr(supervisor, "ONE_STOP", 0.5)
        deaf = family.start(python("deaf", DEAF, patience=3600))
        wait_for_line(deaf)
        threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGINT)).start()
        family.stop(within=3600)
        assert family.hurried
    assert signal.getsignal(signal.SIGTERM) is before


ORPHAN = """
import sys
from snakepit.pools.cli.supervisor import Program, Supervisor
family = Supervisor()
child = family.start(Program("child", [sys.executable, "-c", {waits!r}]))
print(child.process.pid, flush=True)
family.next()
"""


def test_children_die_with_a_supervisor_that_is_killed() -> None:
    code = ORPHAN.format(waits=WAITS)
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        while "up" not in parent.stdout.readline():
            pass
        assert running(pid)
        parent.kill()
    deadline = time.monotonic() + PATIENCE
    while running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)

"""`snakepit top`: what a frame says, and that a terminal is given back as it was."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from rich.console import Console

from snakepit.pools.broker.status import PoolStatus, RunningCall, WorkerStatus
from snakepit.pools.cli import top
from snakepit.pools.cli.main import run
from tests import statuses
from tests.process.contract.fake_broker import FakeBroker
from tests.statuses import status

ROOT = Path(__file__).parents[3]
PATIENCE = 120.0  # a bound for a machine under load, never a wait
Captured = pytest.CaptureFixture[str]
NODE = {"name": "n1", "problems": ("x: size",)}


def pool(name: str, slots: int, free: int, finished: int = 0, waiting: int = 0) -> PoolStatus:
    return statuses.pool(
        name, busy=1, slots=slots, free=free, waiting=waiting, oldest_wait=1.5, finished=finished, memory_mb=50.0
    )


def worker(name: str, load: int, started: float = 900.0) -> WorkerStatus:
    calls = (RunningCall("c-1", "classify", 2.5, 10.0),) if load else ()
    return statuses.worker(name, load=load, capacity=2, served=3, started_at=started, calls=calls)


def shown(screen: top.Screen, now: float, rows: int = 50) -> str:
    out = io.StringIO()
    Console(file=out, width=140).print(top.frame(screen, now, rows))
    return out.getvalue()


def updated(at: float, *pools: PoolStatus) -> top.Screen:
    screen = top.Screen("/run/b.sock")
    screen.update(status(pools, **NODE), at)
    return screen


def test_the_busiest_pools_and_workers_come_first() -> None:
    screen = updated(1000.0)
    pools = [pool("idle", 2, 2), pool("full", 2, 0, waiting=3), pool("half", 2, 1)]
    workers = [worker("a-1", 0), worker("a-2", 2), worker("a-3", 1)]
    screen.update(status(pools, workers, **NODE), 1000.0)
    text = shown(screen, 1000.0)
    places = [text.index(name) for name in ("full", "half", "idle", "a-2", "a-3", "a-1")]
    assert places == sorted(places)
    assert "1.5 s" in text
    assert "classify 2.5 s" in text
    assert "1 min 40 s" in text
    assert "problem: x: size" in text


def test_workers_that_do_not_fit_are_counted() -> None:
    screen = top.Screen("/run/b.sock")
    screen.update(status([], [worker(f"a-{n}", 0) for n in range(9)]), 1000.0)
    assert "... and 6 more" in shown(screen, 1000.0, rows=3)


def test_calls_a_second_come_from_two_answers() -> None:
    screen = updated(1000.0, pool("a", 1, 1, finished=10))
    assert "a" not in screen.rates
    screen.update(status([pool("a", 1, 1, finished=30)]), 1004.0)
    assert screen.rates["a"] == 5.0
    screen.update(status([pool("a", 1, 1, finished=0)]), 1005.0)
    assert screen.rates["a"] == 0.0, "a broker that was restarted counts anew"


def test_a_broker_that_goes_and_comes_back_is_shown_with_the_age_of_the_figures() -> None:
    screen = updated(1000.0)
    assert "live" in shown(screen, 1000.5)
    screen.miss("No broker answers.", 1001.0)
    screen.miss("No broker answers.", 1009.0)
    text = shown(screen, 1010.0)
    assert "no broker has answered for 9 s: No broker answers." in text
    assert "status is 10 s old" in text
    screen.update(status([]), 1011.0)
    assert "the broker is back" in shown(screen, 1012.0)
    assert "the broker is back" not in shown(screen, 1020.0)


def test_without_a_terminal_one_frame_is_printed(broker: FakeBroker, capsys: Captured) -> None:
    for words in (["top"], ["top", "--once"]):
        assert run(words) == 0
        out = capsys.readouterr().out
        assert "broker fake" in out
        assert "echo-1" in out
        assert "\x1b[" not in out


def test_without_a_broker_the_frame_reports_it_and_the_exit_code_is_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("SNAKEPIT_ADDRESS", str(tmp_path / "none.sock"))
    assert run(["top", "--once"]) == 3
    assert re.search(r"no broker has answered for \d+ s", capsys.readouterr().out)


@pytest.mark.parametrize("how", ["key", "signal"])
def test_a_terminal_is_given_back_as_it_was(how: str, broker: FakeBroker) -> None:
    outer, inner = pty.openpty()
    try:
        before = termios.tcgetattr(inner)
        child = subprocess.Popen(
            [sys.executable, "-m", "snakepit.pools.cli", "top", "--interval", "0.1"],
            cwd=ROOT, stdin=inner, stdout=inner, stderr=inner,
            start_new_session=True, env={**os.environ, "TERM": "xterm", "COLUMNS": "140"},
        )  # fmt: skip
        said = read_until(outer, b"echo-1")
        assert b"\x1b[?1049h" in said
        if how == "key":
            os.write(outer, b"xq")
        else:
            child.send_signal(signal.SIGINT)
        said = read_until(outer, b"\x1b[?1049l")
        if (shown := b"\x1b[?25h") not in said:
            read_until(outer, shown)
        assert child.wait(PATIENCE) == 0
        assert termios.tcgetattr(inner) == before
    finally:
        os.close(outer)
        os.close(inner)


def read_until(terminal: int, mark: bytes) -> bytes:
    said, end = b"", time.monotonic() + PATIENCE
    while mark not in said:
        left = end - time.monotonic()
        assert left > 0, said[-2000:]
        if select.select([terminal], [], [], left)[0]:
            said += os.read(terminal, 65536)
    return said

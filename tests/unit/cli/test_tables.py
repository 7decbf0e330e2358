"""Tables stay readable where the terminal is narrow and a name is long."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from snakepit.pools.cli.events import line
from snakepit.pools.cli.status import _pools, _workers
from tests.statuses import event, pool, worker

LONG = "a-pool-whose-name-has-as-many-characters-as-fit1"


def drawn(table_of: str, width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width)
    rows = {
        "pools": lambda: _pools(
            console, [pool(LONG, ready=12, size=12, slots=96, free=96, waiting=1234, finished=1234567)]
        ),
        "workers": lambda: _workers(console, [worker(f"{LONG}-2aeb-17", pid=4194304, state="ready", served=1234567)]),
    }
    console.print(rows[table_of]())
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_numbers_and_names_are_whole_in_a_narrow_terminal(width: int) -> None:
    assert len(LONG) == 48
    text = drawn("pools", width)
    assert "…" not in text
    for number in ("12/12", "96/96", "1234"):
        assert number in text
    assert LONG in "".join(row.split()[0] for row in text.splitlines()[3:] if row.strip())
    assert all(len(row) <= width for row in text.splitlines())


@pytest.mark.parametrize("width", [60, 80])
def test_a_worker_keeps_its_pid_and_state(width: int) -> None:
    text = drawn("workers", width)
    assert "…" not in text
    assert "4194304" in text
    assert "ready" in text


def test_a_wide_terminal_shows_every_column() -> None:
    assert all(name in drawn("pools", 160) for name in ("profile", "busy", "done", "1234567"))


def test_an_event_is_one_line_whatever_its_text_has() -> None:
    shown = line(event(1, "worker.died", pool="p", worker="p-1", message="killed\nby \x1b[31mhand"))
    assert shown.count("\n") == 0
    assert "\x1b" not in shown
    assert "worker.died" in shown
    assert "p-1: killed" in shown

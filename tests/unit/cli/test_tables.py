"""Tables stay readable where the terminal is narrow and a name is long."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from snakepit.pools.cli import jobs, top
from snakepit.pools.cli.events import line
from snakepit.pools.cli.status import _pools, _workers
from snakepit.pools.cli.tables import fitted
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


@pytest.mark.parametrize(("table_of", "kept"), [("pools", ["12/12"]), ("workers", ["4194304"])])
def test_a_terminal_of_forty_columns_shows_names_and_states_whole(table_of: str, kept: list[str]) -> None:
    text = drawn(table_of, 40)
    assert "…" not in text
    assert LONG in "".join(row.split()[0] for row in text.splitlines()[3:] if row.strip())
    assert all(word in text for word in ("ready", *kept))


@pytest.mark.parametrize("width", [60, 80])
def test_a_worker_keeps_its_pid_and_state(width: int) -> None:
    text = drawn("workers", width)
    assert "…" not in text
    assert "4194304" in text
    assert "ready" in text


JOB = {
    "id": "01a22bbc-58a0-7cd5-9bec-770102c94667", "pool": LONG, "command": "classify", "state": "quarantined",
    "attempts": 3, "progress": 0.5, "created_at": "2026-11-30T09:14:58.123456+00:00", "owner": "grace",
    "arguments_short": '{"pixels": [0.0, 1.0]}', "error": {"code": "adapter_error", "message": "KeyError: 'region'"},
}  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_a_list_of_jobs_keeps_what_names_a_job_and_its_state(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width)
    console.print(jobs._table(console, [JOB]))
    text = out.getvalue()
    assert "…" not in text
    assert [one for one in ("770102c94667", "quarantined", "classify") if one not in text] == []
    assert all(len(row) <= width for row in text.splitlines())
    assert (JOB["id"] in text) == (width >= 160)
    assert ("adapter_error" in text) == (width >= 80)


@pytest.mark.parametrize("width", [60, 80])
def test_top_fits_a_narrow_terminal(width: int) -> None:
    out = io.StringIO()
    screen = top.Screen("")
    one = worker(f"{LONG}-2aeb-17", pid=4194304, state="ready", served=1234567)
    console = Console(file=out, width=width)
    console.print(top._pools(screen, [pool(LONG, ready=12, size=12, waiting=1234, finished=1234567)]))
    console.print(top._workers([one] * 3, 2, 0.0))
    text = out.getvalue()
    assert "…" not in text
    assert [part for part in ("12/12", "1234", "... and 1", "a-pool-whose") if part not in text] == []
    assert all(len(row) <= width for row in text.splitlines())


def test_an_empty_column_is_left_out_first() -> None:
    columns = {"name": ["x" * 30], "error": [""], "created": ["2026-11-30 09:14:58"]}
    table = fitted(Console(width=44), columns, less=("created", "error"))
    assert [column.header for column in table.columns] == ["name", "created"]


def test_a_wide_terminal_shows_every_column() -> None:
    assert all(name in drawn("pools", 160) for name in ("profile", "busy", "done", "1234567"))


def test_an_event_is_one_line_whatever_its_text_has() -> None:
    shown = line(event(1, "worker.died", pool="p", worker="p-1", message="killed\nby \x1b[31mhand"))
    assert shown.count("\n") == 0
    assert "\x1b" not in shown
    assert "worker.died" in shown
    assert "p-1: killed" in shown

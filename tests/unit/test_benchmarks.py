"""The benchmark suite keeps what it has measured, whatever becomes of the other rows."""

from __future__ import annotations

import json
import threading

import pytest

from benchmarks import __main__ as command
from benchmarks import report, suite
from benchmarks.latest import Latest
from benchmarks.row import Failed, Measured, Result, Row, Run

TODAY = Run("2026-02-03", "a machine", busy=True)
EARLIER = Run("2026-01-01", "a machine")


def row(name, measure=lambda stage: Measured(2.0, 4.0, {"broker": 7.0}, "a note"), **fields):
    return Row(name, f"what {name} measures", "a peer", "s", measure, **fields)


def broken(stage):
    raise ValueError("no\nserver | there")


def endless(stage):
    while True:
        try:
            threading.Event().wait()
        except Exception:  # a contestant that tries until it succeeds
            continue


@pytest.fixture
def path(tmp_path):
    return tmp_path / "latest.json"


def run(rows, path, where=TODAY, limit=60.0):
    latest = Latest(path, rows)
    told = []

    def report(outcome, seconds):
        latest.enter(outcome)
        told.append((outcome.row.name, [one["name"] for one in json.loads(path.read_text())]))

    suite.run(rows, lambda: where, report, limit)
    return told


def test_a_failed_row_is_reported_with_its_reason_and_affects_no_other(path):
    rows = [row("one", target=1), row("two", broken, target=1), row("three")]
    told = run(rows, path)
    assert told == [("one", ["one"]), ("two", ["one", "two"]), ("three", ["one", "two", "three"])]
    one, two, three = json.loads(path.read_text())
    assert (one["ours"], one["peer"], one["ratio"], one["met"]) == (2.0, 4.0, 0.5, True)
    assert (two["ratio"], two["met"], two["failed"]) == (None, False, "ValueError: no server | there")
    assert "met" not in three


def test_a_peer_of_zero_is_a_row_that_failed(path):
    run([row("one", lambda stage: Measured(1.0, 0.0))], path)
    assert json.loads(path.read_text())[0]["failed"].startswith("ZeroDivisionError")


def test_a_row_that_hangs_is_stopped(path):
    told = run([row("one", endless), row("two")], path, limit=0.1)
    assert [name for name, _ in told] == ["one", "two"]
    assert json.loads(path.read_text())[0]["failed"] == "no result after 0.1 s"


def test_a_contestant_that_does_not_start_fails_its_rows_alone(path, monkeypatch):
    monkeypatch.setattr(suite.RunningContestants, "get", broken)
    run([row("one", needs=("ours",)), row("two")], path)
    one, two = json.loads(path.read_text())
    assert "failed" in one
    assert "failed" not in two


def test_rows_that_are_run_again_leave_the_others_with_their_own_date(path):
    rows = [row("one"), row("two")]
    run(rows, path, EARLIER)
    latest = Latest(path, rows)
    suite.run(rows[1:], lambda: TODAY, lambda outcome, seconds: latest.enter(outcome))
    again = Latest(path, rows)
    assert [(one.row.name, one.run.date) for one in again.outcomes()] == [("one", "2026-01-01"), ("two", "2026-02-03")]


def test_a_failure_replaces_the_figures_of_an_earlier_run(path):
    run([row("one")], path, EARLIER)
    run([row("one", broken)], path)
    (outcome,) = Latest(path, [row("one")]).outcomes()
    assert isinstance(outcome, Failed)
    assert outcome.run == TODAY


def test_a_row_that_is_no_more_leaves_the_file_with_the_next_one(path):
    run([row("gone"), row("one")], path)
    run([row("one")], path)
    assert [one["name"] for one in json.loads(path.read_text())] == ["one"]


def test_what_was_kept_is_read_as_it_was(path):
    rows = [row("one")]
    run(rows, path)
    assert Latest(path, rows).outcomes() == [
        Result(rows[0], Measured(2.0, 4.0, {"broker": 7.0}, "a note"), TODAY),
    ]


def test_the_page_marks_rows_that_failed_and_rows_that_were_not_run(path):
    rows = [row("one", target=0.1), row("two", broken), row("three", target=3, smaller=False)]
    run(rows[:2], path)
    page = report.page(Latest(path, rows))
    assert "| `one` | what one measures | 2 | 4 | a peer | s | 0.5 | ≤ 0.1 | NO | 2026-02-03, busy |" in page
    assert "| `two` | what two measures | - | - | a peer | s | failed |  |  | 2026-02-03, busy |" in page
    assert "| `three` | what three measures | - | - | a peer | s | not run | ≥ 3 |  | - |" in page
    assert "- `two`: ValueError: no server   there\n" in page  # no cell and no link comes from an error
    assert "| `one` | - | 7 | - | 7 |" in page
    assert "- `one`: a note" in page


def test_the_exit_code_is_1_if_a_row_failed(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "LATEST", path)
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(command.plot, "draw", lambda outcomes, path: None)
    monkeypatch.setattr(command.sys, "argv", ["benchmarks"])
    monkeypatch.setattr(command, "ROWS", {"good": row("good"), "bad": row("bad", broken)})
    monkeypatch.setenv("ROWS", "good")
    assert command.main() == 0
    assert "not run" in (tmp_path / "page.md").read_text()
    monkeypatch.setenv("ROWS", "bad,good")
    assert command.main() == 1
    assert "FAILED, ValueError" in capsys.readouterr().out
    monkeypatch.setattr(command.sys, "argv", ["benchmarks", "--page"])
    assert command.main() == 0
    monkeypatch.setenv("ROWS", "worse")
    monkeypatch.setattr(command.sys, "argv", ["benchmarks"])
    with pytest.raises(SystemExit, match="unknown row 'worse'; the rows are: good, bad"):
        command.main()
    monkeypatch.setattr(command.sys, "argv", ["benchmarks", "--help"])
    with pytest.raises(SystemExit, match="--help: unknown argument; to select rows"):
        command.main()


def test_the_page_in_the_documentation_is_fresh():
    latest = Latest(report.LATEST, command.ROWS.values())
    assert report.PAGE.read_text() == report.page(latest), "stale: run `python -m benchmarks --page`"

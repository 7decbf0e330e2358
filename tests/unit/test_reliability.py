"""What `make faults` counts, stores and publishes; the faults themselves are no part of the suite."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults import __main__ as command
from benchmarks.faults import report
from benchmarks.faults.catalogue import FAULTS
from benchmarks.faults.census import Census
from benchmarks.faults.fault import CallCount, Fault, Findings
from snakepit.pools.broker.errors import QueueFull

TESTS = Path(__file__).parents[1]


def raising(error: Exception) -> Any:
    def run() -> None:
        raise error

    return run


def fault(run: Any) -> Fault:
    return Fault("one", "A fault", "It holds.", ("unit/test_reliability.py",), run, seconds=3.0)


def fine(seconds: float) -> Findings:
    return Findings({"calls": "5 of 5 right"})


def broken(seconds: float) -> Findings:
    found = fine(seconds)
    found.expect(False, "a promise")
    found.expect(True, "another promise")
    return found


def outcomes(run: Any) -> dict[str, report.Outcome]:
    return {"one": command.attempt(fault(run), 2.0)}


@pytest.mark.parametrize("name", FAULTS)
def test_the_tests_that_a_fault_names_exist(name: str) -> None:
    assert FAULTS[name].tests
    for test in FAULTS[name].tests:
        path, _, function = test.partition("::")
        text = (TESTS / path).read_text()
        assert not function or re.search(rf"^(async )?def {function}\(", text, re.MULTILINE), test


def test_a_counted_accepts_right_answers_and_typed_errors_only() -> None:
    counted, found = CallCount(), Findings()
    counted.call(lambda: 2, 2)
    counted.call(raising(QueueFull("full")), 2)
    counted.check(found, "calls")
    assert (found.broken, str(counted)) == ([], "1 of 2 right (50.00 %); 1 queue_full")
    counted.call(lambda: 3, 2)
    counted.call(raising(ValueError("bare")), 2)
    counted.check(found, "calls")
    assert found.broken == ["calls: 1 wrong answers", "calls: 1 untyped errors, such as ['ValueError: bare']"]


def test_a_counted_without_calls_proves_nothing() -> None:
    found = Findings()
    CallCount().check(found, "calls")
    assert found.broken == ["calls: no call was made"]


def test_a_census_names_what_there_is_more_of() -> None:
    before = Census(descriptors=10, threads=3, children=2, zombies=0, rss_mb=50.0)
    assert before.more_than(before) == []
    after = Census(descriptors=11, threads=300, children=2, zombies=1, rss_mb=90.0)
    assert after.more_than(before) == ["descriptors 10 to 11", "threads 3 to 300", "zombies 0 to 1"]


@pytest.mark.parametrize(
    ("run", "verdict"), [(fine, "holds"), (broken, "broken"), (lambda seconds: 1 / 0, "failed"), (None, "not run")]
)
def test_the_page_says_how_each_fault_ended(run: Any, verdict: str, capsys: Any) -> None:
    found = outcomes(run) if run else {}
    page = report.page({"one": fault(run)}, found)
    assert f"| `one` | {verdict} |" in page
    assert ("| calls | 5 of 5 right |" in page) == (verdict in ("holds", "broken"))
    assert ("| Broken | a promise |" in page) == (verdict == "broken")
    assert ("ZeroDivisionError" in page) == (verdict == "failed")


def test_an_outcome_replaces_the_earlier_one_and_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    report.enter("one", {"measured": {"calls": "1"}}, path)
    report.enter("two", {"measured": {"calls": "2"}}, path)
    report.enter("one", {"measured": {"calls": "3"}}, path)
    assert report.read(path) == {"one": {"measured": {"calls": "3"}}, "two": {"measured": {"calls": "2"}}}


@pytest.mark.parametrize(
    ("given", "words"), [(["kill-stork"], "unknown fault 'kill-stork'"), (["--seconds", "0"], "outside 1 to 86400")]
)
def test_a_wrong_argument_is_refused_by_name(given: list[str], words: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        command.arguments(given)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err

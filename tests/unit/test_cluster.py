"""What `python -m benchmarks.cluster` finds in calls and jobs; the three hosts themselves are no part of the suite."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.cluster import report
from benchmarks.cluster.caller import IDEMPOTENT, OTHER, PLACED, Call
from benchmarks.cluster.verdict import JobFacts, Moments, Names, judge

MOMENTS = Moments(quiet=(0.0, 10.0), killed=(12.0, 19.0), lost=(25.0, 37.0), drained=(43.0, 49.0), end=60.0, ready=21.0)
NAMES = Names(("a", "b", "c"), killed="a", lost="b", drained="c", gpu="c")
JOBS = JobFacts(
    2, states=Counter(succeeded=2), ends=Counter({1: 2}), placed=Counter({"c": 1}),
)  # fmt: skip
GOOD = [
    *(Call(kind, second + 0.1, 0.2, node, "") for second in range(60) for node in "abc" for kind in (IDEMPOTENT, OTHER)
      if node != "c" or not 43 <= second < 49),
    Call(PLACED, 5.0, 0.2, "c", ""),
    Call(OTHER, 14.0, 4.9, "", "deadline_exceeded"),
]  # fmt: skip


def test_a_run_in_which_all_holds() -> None:
    found = judge(GOOD, JOBS, MOMENTS, NAMES)
    assert found.broken == []
    assert found.measured["calls: other"] == "174 of 175 right; 1 deadline_exceeded"
    assert found.measured["jobs"] == "2 of 2 accepted succeeded"


@pytest.mark.parametrize(
    ("call", "broken"),
    [
        (Call(IDEMPOTENT, 30.0, 8.0, "", "broker_unreachable"), "idempotent calls failed"),
        (Call(OTHER, 30.0, 0.1, "", "untyped: OSError: x"), "other: ['untyped"),
        (Call(OTHER, 30.0, 0.1, "a", "wrong"), "other: ['wrong"),
        (Call(OTHER, 30.0, 5.1, "", "deadline_exceeded"), "1.10 s beyond its deadline"),
        (Call(IDEMPOTENT, 46.0, 0.1, "c", ""), "1 calls went to a drained node"),
        (Call(PLACED, 46.0, 0.1, "b", ""), "calls of the placed pool ran on"),
    ],
)
def test_a_call_that_breaks_a_promise_is_found(call: Call, broken: str) -> None:
    (found,) = judge([*GOOD, call], JOBS, MOMENTS, NAMES).broken
    assert broken in found


def test_uneven_load_and_a_node_that_does_not_come_back_are_found() -> None:
    more = [Call(OTHER, 5.0, 0.1, "a", "")] * 20
    (uneven,) = judge([*GOOD, *more], JOBS, MOMENTS, NAMES).broken
    assert uneven.startswith("the load before the faults is ")
    late = [call for call in GOOD if not (call.node == "a" and 19 <= call.began < 32)]
    assert judge(late, JOBS, MOMENTS, NAMES).broken == ["the killed broker had no call within 10 s after its return"]


@pytest.mark.parametrize(
    ("jobs", "broken"),
    [
        (replace(JOBS, states=Counter(succeeded=1, lost=1)), "jobs ended as"),
        (replace(JOBS, ends=Counter({1: 1, 2: 1})), "jobs by number of ends"),
        (replace(JOBS, placed=Counter(a=1, c=1)), "jobs of the placed pool ran on"),
        (replace(JOBS, refused=Counter({"untyped: OSError": 1})), "submissions"),
    ],
)
def test_a_job_that_breaks_a_promise_is_found(jobs: JobFacts, broken: str) -> None:
    (found,) = judge(GOOD, jobs, MOMENTS, NAMES).broken
    assert found.startswith(broken)


def test_the_page_has_the_newest_outcome() -> None:
    outcome = {"measured": {"jobs": "all"}, "broken": [], "callers": 3, "seconds": 30.0, "busy": True, "date": "today"}
    page = report.with_outcome(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", outcome)
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "old" not in page
    assert "today, 3 callers for 30 s, on a busy machine: all promises held." in page
    assert "| jobs | all |" in page
    worse = report.with_outcome(page, {**outcome, "broken": ["a promise"]})
    assert "1 promises did not hold" in worse
    assert "| **did not hold** | a promise |" in worse

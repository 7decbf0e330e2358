"""Reports waiting for the wire."""

from __future__ import annotations

import pytest

from snakepit.workers.report import ChunkReport, EncodedValue, LogReport, Outbox, ProgressReport, ResultReport


@pytest.fixture
def wakes() -> list[int]:
    return []


@pytest.fixture
def outbox(wakes) -> Outbox:
    return Outbox(lambda last: wakes.append(1), batch_bytes=1000, log_lines=3)


def drained(outbox: Outbox) -> list:
    reports = []
    while batch := outbox.take():
        reports += batch
    return reports


def test_reports_leave_in_the_order_they_came(outbox):
    reports = [ResultReport(number, None) for number in range(5)]
    for report in reports:
        outbox.put(report)
    assert drained(outbox) == reports


def test_many_reports_wake_the_writer_once(outbox, wakes):
    for number in range(5):
        outbox.put(ResultReport(number, None))
    assert len(wakes) == 1
    outbox.take()
    outbox.put(ResultReport(9, None))  # the writer is at work and will look again
    assert len(wakes) == 1
    drained(outbox)
    outbox.put(ResultReport(10, None))
    assert len(wakes) == 2


def test_a_batch_is_bounded_and_never_empty(outbox):
    for number in range(3):
        outbox.put(ChunkReport(number, EncodedValue(b"x" * 600)))
    outbox.put(ChunkReport(3, EncodedValue(b"x" * 5000)))
    assert [len(outbox.take()) for _ in range(5)] == [1, 1, 1, 1, 0]


def test_only_the_newest_progress_of_a_call_waits(outbox):
    for step in range(100):
        outbox.put(ProgressReport(1, step / 100, f"step {step}"))
    outbox.put(ProgressReport(2, 0.5, "other"))
    assert drained(outbox) == [ProgressReport(1, 0.99, "step 99"), ProgressReport(2, 0.5, "other")]
    outbox.put(ProgressReport(1, 1.0, "done"))
    assert drained(outbox) == [ProgressReport(1, 1.0, "done")]


def test_log_lines_beyond_the_limit_are_counted(outbox):
    for number in range(10):
        outbox.put(LogReport(1, f"line {number}"))
    outbox.put(ResultReport(1, None))
    reports = drained(outbox)
    assert [report.message for report in reports[:3]] == ["line 0", "line 1", "line 2"]
    assert reports[3] == LogReport(1, "(7 log lines were dropped: they came faster than they were read)")
    assert reports[4] == ResultReport(1, None)
    outbox.put(LogReport(1, "room again"))
    assert drained(outbox) == [LogReport(1, "room again")]


def test_dropped_lines_are_counted_for_each_call(outbox):
    for sequence in (1, 1, 1, 1, 2, 2, 1):
        outbox.put(LogReport(sequence, "line"))
    told = [report for report in drained(outbox) if "dropped" in report.message]
    assert [(report.sequence, report.message[:4]) for report in told] == [(1, "(2 l"), (2, "(2 l")]

"""What a machine can carry: each limit on both sides, threads with their factor, and every lack of evidence."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.diagnostics.advice import TOO_LITTLE, Capacity
from snakepit.pools.diagnostics.scaling import (
    CPU,
    LARGEST,
    MEASURED,
    MEMORY,
    SIZE,
    ScalingEstimate,
    ScalingFacts,
    gather,
    memory_warning,
    scale,
)
from tests.statuses import pool, run_times, status, template, usage, worker

OCR = ScalingFacts(
    "ocr", size=4, ready=4, answered=6000, served=6000, seconds=600.0, busy=0.5, wait_p95=0.02, run_seconds=0.2,
    runs=6000, cpu_per_call=0.1, cpu_calls=5000, each_mb=200.0, measured=4, cores=4.0, free_mb=8000.0,
)  # fmt: skip


def carried(**change: Any) -> tuple[str, float, int]:
    """What binds first, and what the machine carries."""
    found = scale(replace(OCR, **change))
    assert found.verdict == MEASURED, found.lacks
    assert found.carries
    assert found.carries.calls_per_second is not None
    assert found.carries.workers is not None
    return found.binds, round(found.carries.calls_per_second, 6), found.carries.workers


def refused(found: ScalingEstimate) -> str:
    assert (found.verdict, found.binds, found.carries) == (TOO_LITTLE, "", None)
    return found.sentence


def test_the_size_is_the_limit_where_the_machine_has_room_and_the_answer_names_the_largest() -> None:
    assert carried() == (SIZE, 40.0, 8)
    assert scale(OCR).sentence == (
        "the size binds first, at 20 calls/s with 4 workers; "
        "the machine carries 40 calls/s with 8 workers, then CPU binds"
    )


@pytest.mark.parametrize(("cores", "binds"), [(2.1, SIZE), (2.0, CPU), (1.0, CPU)])
def test_cpu_binds_from_where_the_present_size_uses_all_cores(cores: float, binds: str) -> None:
    assert carried(cores=cores)[:2] == (binds, cores / 0.1)


def test_where_cpu_binds_the_workers_are_those_that_use_it_and_no_more() -> None:
    assert scale(replace(OCR, cores=1.0)).sentence == "CPU binds first, at 10 calls/s with 2 workers"


def test_what_other_pools_compute_is_not_there_for_this_one() -> None:
    assert carried(others=2.5) == (CPU, 15.0, 3)


@pytest.mark.parametrize(
    ("free", "expected"),
    [(199.0, (MEMORY, 20.0, 4)), (200.0, (SIZE, 25.0, 5)), (799.0, (SIZE, 35.0, 7)), (800.0, (SIZE, 40.0, 8))],
)
def test_memory_allows_the_workers_that_are_there_and_those_that_fit(free: float, expected: Any) -> None:
    assert carried(free_mb=free) == expected
    end = scale(replace(OCR, free_mb=free)).carries
    assert end
    assert end.resource == (MEMORY if free < 800 else CPU)


def test_memory_binds_below_the_size_where_not_all_workers_fit() -> None:
    assert carried(ready=2, free_mb=250.0) == (MEMORY, 15.0, 3)


def test_calls_that_wait_are_bound_by_the_largest_size_in_the_end() -> None:
    assert carried(cpu_per_call=0.00001, each_mb=0.5) == (SIZE, 5000.0, 1000)
    end = scale(replace(OCR, cpu_per_call=0.00001, each_mb=0.5))
    assert end.carries
    assert end.carries.resource == LARGEST
    assert "the broker's own work is not counted" in " ".join(end.notes)


def test_evidence_is_enough_from_a_hundred_calls_and_a_minute_on() -> None:
    assert refused(scale(replace(OCR, served=12))) == "not enough evidence: 12 calls in 10 minutes; needs 100"
    refused(scale(replace(OCR, served=99)))
    refused(scale(replace(OCR, seconds=59.0)))
    assert scale(replace(OCR, served=100, seconds=60.0)).verdict == MEASURED


@pytest.mark.parametrize(
    ("change", "lack"),
    [
        ({"cpu_per_call": None, "cpu_calls": 3}, "CPU time is known of 3 calls; needs 20"),
        ({"cpu_per_call": 0.0, "cpu_calls": 30}, "30 calls used less CPU time than can be measured"),
        ({"cores": None}, "the cores of the broker's machine are not known here"),
        ({"each_mb": None}, "no worker's memory is measured"),
        ({"free_mb": None}, "the free memory of the broker's machine is not known here"),
    ],
)
def test_a_limit_without_evidence_has_no_number_but_the_size_has(change: Any, lack: str) -> None:
    found = scale(replace(OCR, **change))
    assert lack in refused(found)
    assert [one.resource for one in found.limits if not one.is_known] in ([CPU], [MEMORY])
    assert found.limits[0].calls_per_second == pytest.approx(20.0)


THREADS = {"profile": "thread", "threads": 8, "size": 1, "ready": 1, "measured": 1}


def test_threads_that_wait_carry_as_many_calls_as_there_are_slots() -> None:
    assert carried(**THREADS, factor=1.0, cpu_per_call=0.01) == (SIZE, 400.0, 10)
    found = scale(replace(OCR, **THREADS, factor=1.0, cpu_per_call=0.01))  # type: ignore[arg-type]
    assert found.limits[0].calls_per_second == pytest.approx(40.0)
    assert "1 worker of 8 threads" in found.sentence


def test_threads_that_compute_carry_what_the_factor_lets_run_at_once() -> None:
    found = scale(replace(OCR, **THREADS, factor=1.9))  # type: ignore[arg-type]
    assert found.limits[0].calls_per_second == pytest.approx(19.0)  # and not 40
    assert "of which 1.9 compute together" in found.limits[0].evidence
    assert carried(**THREADS, factor=1.9) == (SIZE, 40.0, 3)
    assert carried(**THREADS, factor=4.0) == (CPU, 40.0, 1)


def test_threads_whose_parallelism_is_not_measured_are_not_guessed_at() -> None:
    found = scale(replace(OCR, **THREADS))  # type: ignore[arg-type]
    assert "the parallelism is not measured yet" in refused(found)


def test_used_up_cores_make_run_times_longer_and_the_answer_names_them() -> None:
    assert not scale(OCR).notes
    assert "2.0 of 2 cores compute now" in scale(replace(OCR, cores=2.0, served=12000)).notes[0]


def measured_status() -> BrokerStatus:
    used = usage(
        seconds=600.0, answered=1300, refused=60, timed_out=40, busy=0.5, wait_p95=0.1, cpu_per_call=0.1, cpu_calls=900
    )
    runs = (run_times("a", 100, 10.0), run_times("b", 100, 30.0))
    given = {"adapter": "a", "profile": "thread", "size": 2, "usage": used, "run_times": runs}
    pools = [pool("p", **given, parallelism=1.9, template=template(memory_mb=80.0)), pool("q", **given)]
    ready = worker("p-1", memory_mb=100.0, capacity=4)
    return status(pools, [ready, worker("p-2", state="starting")])


def test_the_facts_are_those_of_the_status() -> None:
    found = gather(measured_status(), "p", Capacity(cores=2.0, free_mb=1000.0))
    assert (found.served, found.answered, found.runs, found.run_seconds) == (1200, 1300, 200, 0.2)
    assert (found.ready, found.threads, found.each_mb, found.measured, found.template_mb) == (1, 4, 100.0, 1, 80.0)
    assert (found.factor, found.cores, found.free_mb, found.others) == (1.9, 2.0, 1000.0, pytest.approx(0.2))
    idle = gather(measured_status(), "q")
    assert (idle.factor, idle.template_mb, idle.each_mb, idle.ready, idle.cores) == (None, None, None, 0, None)


def test_the_answer_is_plain_json_also_where_nothing_is_known() -> None:
    assert json.loads(json.dumps(scale(OCR).plain(), allow_nan=False))["carries"]["workers"] == 8
    nothing = json.loads(json.dumps(scale(ScalingFacts("p")).plain(), allow_nan=False))
    assert (nothing["verdict"], nothing["binds"], nothing["limits"][0]["calls_per_second"]) == (TOO_LITTLE, None, None)


@pytest.mark.parametrize(
    ("size", "change", "warns"),
    [
        (44, {}, False),  # four are ready, and 8,000 MiB hold 40 of 200 MiB
        (45, {}, True),
        (45, {"size": 45}, False),
        (45, {"free_mb": None}, False),
        (45, {"each_mb": None}, False),
        (5, {"free_mb": 0.0}, True),
    ],
)
def test_a_larger_size_that_the_memory_does_not_hold_has_a_warning(
    size: int, change: dict[str, Any], warns: bool
) -> None:
    facts = replace(OCR, node="n", **change)
    said = memory_warning(facts, size)
    assert bool(said) is warns
    if warns:
        assert f"holds about {facts.ready + int((facts.free_mb or 0) // 200)} workers of ocr (200 MiB each" in said
        assert f"{size} do not fit" in said

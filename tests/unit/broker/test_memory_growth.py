"""Which command leaks, and when the evidence is not enough."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from snakepit.pools.broker.stats.memory_growth import (
    COLUMNS,
    DECAY,
    MEASURED,
    OTHERS,
    TOGETHER,
    TOO_LITTLE,
    MemoryGrowth,
    WorkerGrowth,
    inverted,
)

Leaks = dict[str, float]  # MiB a call


class Worker:
    """A process that grows as its leaks say."""

    def __init__(self, growth: MemoryGrowth, leaks: Leaks, memory: float = 50.0) -> None:
        self.growth, self.leaks, self.memory = growth, leaks, memory
        self.own = WorkerGrowth()

    def run(self, noise: float = 0.0, **counts: int) -> Worker:
        for command, calls in counts.items():
            for _ in range(calls):
                self.own.counts[command] += 1
            self.memory += calls * self.leaks.get(command, 0.0)
        self.growth.sampled(self.own, self.memory + noise, idle=True)
        return self


def told(growth: MemoryGrowth) -> dict[str, tuple[float | None, str]]:
    return {one.command: (None if one.mb is None else round(one.mb, 6) + 0.0, one.verdict) for one in growth.commands()}


def test_the_leaking_command_is_found_among_others_through_noise() -> None:
    growth, rng = MemoryGrowth(), Random(5)
    workers = [Worker(growth, {"embed": 0.05, "index": 0.002}) for _ in range(4)]
    for _ in range(60):
        for worker in workers:
            counts = {command: rng.randint(0, 40) for command in ("embed", "index", "echo")}
            worker.run(noise=rng.uniform(-0.5, 0.5), **counts)
    found = growth.commands()
    assert [one.verdict for one in found] == [MEASURED] * 3
    assert found[0].command == "embed"
    assert found[0].mb == pytest.approx(50.0, rel=0.05)
    for one, truth in zip(found, (50.0, 2.0, 0.0), strict=True):
        assert abs(one.mb - truth) < 4 * one.error, "the error that is told is not the error"
    words = growth.describe(workers[0].own)
    assert words.startswith("grew ")
    assert words.endswith("MiB per 1,000 calls, mostly `embed`")


def test_memory_that_falls_when_the_calls_are_over_is_no_growth() -> None:
    """A worker keeps the files of large results for some seconds."""
    growth = MemoryGrowth()
    worker = Worker(growth, {"leak": 0.5}).run(render=1)
    for _ in range(10):
        worker.memory += 250.0
        worker.run(render=5, leak=2)
        worker.memory -= 250.0
        worker.run()
    worker.run(leak=20)
    assert growth.mb == pytest.approx(20 / 90 * 1000)
    assert worker.own.mb == pytest.approx(20 / 90 * 1000)
    found = {one.command: one for one in growth.commands()}
    assert found["leak"].mb == pytest.approx(500.0)
    assert found["render"].mb == pytest.approx(0.0, abs=1e-6)


def test_a_worker_that_comes_to_share_more_memory_hides_one_pair_at_most() -> None:
    growth = MemoryGrowth()
    worker = Worker(growth, {"leak": 0.5}).run(leak=1)
    for _ in range(10):
        worker.run(leak=10)
    worker.memory -= 400.0
    worker.run()
    assert growth.mb == pytest.approx(9 * 5.0 / 100 * 1000)


def test_too_few_calls_or_samples_are_no_evidence() -> None:
    growth = MemoryGrowth()
    worker = Worker(growth, {"embed": 1.0}).run(embed=1)
    for _ in range(3):  # up to 18 calls
        worker.run(embed=6)
        assert (growth.mb, worker.own.mb, growth.describe(worker.own)) == (None, None, "")
        assert told(growth) == {"embed": (None, TOO_LITTLE)}
    worker.run(embed=2)
    assert (growth.calls, growth.samples, growth.mb, worker.own.mb) == (20, 4, 1000.0, 1000.0)
    assert told(growth) == {"embed": (1000.0, MEASURED)}
    assert growth.describe(worker.own) == "grew 1,000.0 MiB per 1,000 calls, mostly `embed`"
    fresh = WorkerGrowth()
    assert growth.describe(fresh) == "workers of the pool grew 1,000.0 MiB per 1,000 calls, mostly `embed`"


def test_commands_that_only_run_together_are_not_told_apart_and_others_are() -> None:
    growth = MemoryGrowth()
    worker = Worker(growth, {"load": 0.1, "parse": 0.2, "embed": 1.0})
    for turn in range(12):
        worker.run(load=3 + turn % 4, parse=2 * (3 + turn % 4), embed=5 + turn % 3)
    found = told(growth)
    assert (found["load"], found["parse"]) == ((None, TOGETHER), (None, TOGETHER))
    assert found["embed"][1] == MEASURED
    assert growth.mb is not None, "the sum is known all the same"


def test_a_command_that_is_the_sum_of_two_others_cannot_be_told_apart_from_them() -> None:
    growth, rng = MemoryGrowth(), Random(2)
    worker = Worker(growth, {"a": 0.1, "b": 0.2, "lone": 0.5})
    for _ in range(30):
        a, b = rng.randint(1, 9), rng.randint(1, 9)
        worker.run(a=a, b=b, both=a + b, lone=rng.randint(1, 9))
    assert {command: verdict for command, (_, verdict) in told(growth).items()} == {
        "a": TOGETHER, "b": TOGETHER, "both": TOGETHER, "lone": MEASURED,
    }  # fmt: skip


def test_what_the_first_call_loads_is_no_leak() -> None:
    growth = MemoryGrowth()
    worker = Worker(growth, {})
    worker.run()
    worker.memory += 800.0  # the model, loaded by the first call
    worker.run(embed=1)
    for _ in range(5):
        worker.run(embed=10)
    assert worker.own.mb == 0.0
    assert growth.describe(worker.own) == "grew 0.0 MiB per 1,000 calls"


def test_what_grows_while_nothing_runs_is_no_commands_doing() -> None:
    growth = MemoryGrowth()
    worker = Worker(growth, {}).run(echo=1)
    for _ in range(5):
        worker.memory += 10.0
        worker.run()  # idle
        worker.run(echo=10)
    assert told(growth) == {"echo": (0.0, MEASURED)}


def test_memory_that_a_running_call_holds_is_counted_when_it_ends() -> None:
    growth = MemoryGrowth()
    worker = Worker(growth, {}).run(train=1)
    for _ in range(8):
        growth.sampled(worker.own, worker.memory + 300.0, idle=False)  # within the call
        worker.run(train=4)
    assert told(growth) == {"train": (0.0, MEASURED)}


def test_a_leak_that_was_mended_fades() -> None:
    growth = MemoryGrowth()
    worker = Worker(growth, {"embed": 1.0})
    for _ in range(50):
        worker.run(embed=5)
    worker.leaks = {}
    for _ in range(3000):
        worker.run(embed=5)
    (found,) = growth.commands()
    assert found.mb < 1000 * DECAY**2000


def test_the_books_stay_small_however_many_commands_and_samples_come() -> None:
    growth = MemoryGrowth()
    worker = Worker(growth, {"c7": 0.1})
    for turn in range(300):
        worker.run(**{f"c{turn % 40}": 5, f"c{(turn * 7) % 40}": 3})
    assert len(growth.commands()) == COLUMNS + 1
    assert OTHERS in growth.all_calls()
    assert len(worker.own.totals) == COLUMNS + 1
    assert worker.own.counts == {}
    assert sum(growth.all_calls().values()) == growth.calls


def test_no_command_is_named_when_none_causes_most_of_the_growth() -> None:
    growth, rng = MemoryGrowth(), Random(1)
    worker = Worker(growth, {"a": 0.1, "b": 0.1, "c": 0.1})
    for _ in range(40):
        worker.run(a=rng.randint(1, 9), b=rng.randint(1, 9), c=rng.randint(1, 9))
    assert growth.mostly({"a": 10, "b": 10, "c": 10}) == ""
    assert growth.mostly({"a": 100, "b": 10, "c": 10}) == "a"


def test_the_inverse_is_one() -> None:
    rng = Random(3)
    rows = [[rng.random() for _ in range(5)] for _ in range(9)]
    matrix = [[sum(row[one] * row[other] for row in rows) for other in range(5)] for one in range(5)]
    inverse = inverted(matrix)
    for one in range(5):
        for other in range(5):
            product = sum(matrix[one][k] * inverse[k][other] for k in range(5))
            assert product == pytest.approx(float(one == other), abs=1e-6)


# In the pool


def leak(t: Any, worker: int, start: float, a_call: float, samples: int, calls: int = 10) -> None:
    memory = start
    for _ in range(samples):
        for _ in range(calls):
            t.finish(worker, t.submit())
            memory += a_call
        t.do(t.pool.sampled(t.id(worker), memory, t.now))


def test_a_recycle_for_memory_names_the_growth_and_its_command(table: Any) -> None:
    t = table(memory_soft_mb=150.0).ready(1)
    leak(t, 1, 20.0, 5.0, samples=4)
    assert t.worker(1).reason == "memory_soft"
    assert t.worker(1).detail == "220 MiB, limit 150 MiB; grew 5,000.0 MiB per 1,000 calls, mostly `run`"
    t.pass_time(1.0)
    t.ready(2)
    t.leave(1)
    (gone,) = t.told("worker.recycled")
    assert gone.data["mb_per_1000_calls"] == 5000.0
    assert "mostly `run`" in gone.message


def test_a_kill_for_memory_names_it_too(table: Any) -> None:
    t = table(memory_hard_mb=200.0).ready(1)
    leak(t, 1, 20.0, 5.0, samples=4)
    assert (
        "220 MiB, limit 200 MiB; grew 5,000.0 MiB per 1,000 calls, mostly `run`" in t.told("worker.killed")[0].message
    )


def test_a_new_generation_has_a_clean_record(table: Any) -> None:
    t = table().ready(1)
    leak(t, 1, 20.0, 1.0, samples=5)
    assert t.pool.worker_set.growth.mb == 1000.0
    t.apply(args={"mended": True})
    leak(t, 1, 70.0, 1.0, samples=5)  # the old one goes on until its successor is there
    assert t.pool.worker_set.growth.samples == 0


def test_failed_calls_count_as_well(table: Any) -> None:
    t = table().ready(1)
    for ok in (True, False):
        t.finish(1, t.submit(), ok=ok)
    assert t.worker(1).growth.counts == {"run": 2}
    assert t.worker(1).served == 2

"""Each rule on both sides of its threshold, with too little evidence, and where it does not apply."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from snakepit.pools.broker.spec import PoolSpec
from snakepit.pools.broker.status import CommandGrowthStatus
from snakepit.pools.diagnostics.advice import ADVISED, FINE, NONE, NOT_KNOWN, TOO_LITTLE, Capacity, Case, Judgement
from snakepit.pools.diagnostics.recommendations import judge, recommend
from snakepit.pools.diagnostics.rules import RULES
from tests.statuses import command_growth, growth, pool, run_times, template, usage, worker

USAGE = usage(
    seconds=600.0, answered=6000, busy=0.5, peak=2, wait_p50=0.0, wait_p95=0.01, cpu_per_call=0.1, cpu_calls=500,
)  # fmt: skip
GROWTH = growth(3.1, mostly="embed", calls=6000, samples=40)
POOL = pool("p", usage=USAGE, run_times=(run_times("embed", 100, 12.0),), load_seconds=2.0, template=template("absent"))


def case(
    used: dict[str, Any] | None = None, machine: Capacity = NOT_KNOWN, pool: Any = None, mb: float = 210.0, **spec: Any
) -> Case:
    spec = {"name": "p", "adapter": "a", "size": 4, **spec}
    found = replace(POOL, usage=replace(USAGE, **(used or {})), **(pool or {}))
    return Case(found, PoolSpec(**spec), (worker("p-1", memory_mb=mb),), machine)


def said(rule: str, given: Case) -> Judgement:
    found = RULES[rule](given)
    assert (found.rule, found.pool) == (rule, "p")
    assert (found.verdict == ADVISED) == (found.advice is not None)
    return found


def values(rule: str, given: Case) -> Any:
    advice = said(rule, given).advice
    assert advice is not None, said(rule, given)
    return dict(advice.values)


WAITS = {"wait_p95": 1.8, "busy": 0.97}


def test_calls_that_wait_for_busy_slots_ask_for_workers_with_their_price() -> None:
    advice = said("queue", case(WAITS)).advice
    assert advice is not None
    assert advice.sentence == "queue wait p95 1.8 s at 97% busy: size 4 to 6, +420 MiB"


@pytest.mark.parametrize("change", [{"wait_p95": 0.99}, {"busy": 0.84}])
def test_short_waits_and_idle_slots_ask_for_none(change: Any) -> None:
    assert said("queue", case({**WAITS, **change})).verdict == FINE


def test_refused_calls_count_as_demand_and_a_step_is_at_most_twice_the_size() -> None:
    assert values("queue", case({**WAITS, "timed_out": 1500})) == {"size": 8}
    assert values("queue", case({**WAITS, "timed_out": 5500})) == {"size": 8}


def test_workers_do_not_help_where_the_cores_or_the_memory_are_used_up() -> None:
    used = said("queue", case(WAITS, Capacity(cores=1.1)))
    assert (used.verdict, "1.0 of 1.1 cores" in used.evidence) == (FINE, True)
    assert values("queue", case(WAITS, Capacity(cores=None, free_mb=300.0))) == {"size": 5}
    assert said("queue", case(WAITS, Capacity(free_mb=100.0))).verdict == FINE


def test_a_pool_that_fills_the_cores_gets_no_more_workers_than_they_can_run() -> None:
    assert values("queue", case({**WAITS, "answered": 600}, Capacity(cores=4.0))) == {"size": 5}


@pytest.mark.parametrize("rule", ["queue", "idle", "max_requests", "queue_limit", "call_timeout"])
@pytest.mark.parametrize("used", [{"answered": 49}, {"seconds": 59.0}])
def test_too_few_calls_and_too_short_a_time_are_reported_as_such(rule: str, used: Any) -> None:
    found = said(rule, case(used, max_requests=100))
    assert found.verdict == TOO_LITTLE
    assert "needs 50 calls and" in found.evidence


def test_a_pool_without_any_figures_gets_no_advice() -> None:
    found = judge([pool("p")], {"p": PoolSpec(name="p", adapter="a", size=2)})
    assert len(found) == len(RULES)
    assert {one.verdict for one in found} <= {TOO_LITTLE, NONE}


def test_unneeded_workers_are_reported_with_their_cost() -> None:
    idle = {"busy": 0.05, "peak": 1}
    advice = said("idle", case(idle, size=8)).advice
    assert advice is not None
    assert (dict(advice.values), advice.cost) == ({"size": 2}, "-1,260 MiB")
    for change in ({"busy": 0.31}, {"peak": 4}, {"wait_p95": 0.2}):
        assert said("idle", case({**idle, **change}, size=8)).verdict == FINE
    assert said("idle", case({**idle, "seconds": 299.0}, size=8)).verdict == TOO_LITTLE
    assert said("idle", case(idle, size=1)).verdict == NONE


def test_a_leak_asks_for_a_limit_of_calls_and_names_the_command() -> None:
    advice = said("leak", case(pool={"growth": GROWTH}, mb=60.0)).advice
    assert advice is not None
    assert advice.sentence == "leaks 3.1 MiB per 1,000 calls in `embed`: max_requests none to 20000"
    little = replace(GROWTH, mb_per_1000_calls=0.99)
    assert said("leak", case(pool={"growth": little})).verdict == FINE
    young = replace(GROWTH, samples=19)
    assert said("leak", case(pool={"growth": young})).verdict == TOO_LITTLE
    unknown = growth(calls=3, samples=1)
    assert said("leak", case(pool={"growth": unknown})).verdict == TOO_LITTLE


def measured(mb: float, error: float) -> CommandGrowthStatus:
    return command_growth("embed", mb, error)


def test_growth_within_the_error_of_its_measurement_is_no_leak() -> None:
    rare = command_growth("rare", None, None)
    tied = replace(rare, verdict="cannot be told apart")
    chance = said("leak", case(pool={"growth": replace(GROWTH, commands=(measured(3.1, 2.0), rare))}, mb=60.0))
    assert (chance.verdict, chance.advice) == (TOO_LITTLE, None)
    assert "grows 3.1 MiB per 1,000 calls, within the error" in chance.evidence
    for commands in ((measured(3.1, 1.0), rare), (measured(3.1, 2.0), tied), (rare,)):
        assert said("leak", case(pool={"growth": replace(GROWTH, commands=commands)}, mb=60.0)).advice is not None


def test_a_leak_that_is_bounded_is_left_alone() -> None:
    assert said("leak", case(pool={"growth": GROWTH}, mb=60.0, max_requests=40_000)).verdict == FINE
    assert values("leak", case(pool={"growth": GROWTH}, mb=60.0, max_requests=40_001)) == {"max_requests": 20_000}
    assert said("leak", case(pool={"growth": GROWTH}, memory_soft_mb=300)).verdict == FINE


def test_a_fast_leak_does_not_make_workers_live_shorter_than_their_start_is_worth() -> None:
    fast = replace(GROWTH, mb_per_1000_calls=900.0)
    assert values("leak", case(pool={"growth": fast, "load_seconds": 20.0})) == {"max_requests": 1000}


GIL = {"parallelism": 1.02, "gil": "on", "gil_culprit": "orjson"}


def test_threads_that_compute_in_turns_ask_for_processes() -> None:
    given = case(pool=GIL, profile="thread", threads=4, size=1)
    assert values("gil", given) == {"profile": "process", "size": 4}
    assert "because of orjson, calls compute for 83% of their time" in said("gil", given).evidence
    assert values("gil", case(machine=Capacity(cores=2.0), pool=GIL, profile="thread", threads=4, size=1))["size"] == 2


def test_threads_that_wait_or_run_in_parallel_stay_threads() -> None:
    def verdict(used: Any = None, **pool: Any) -> str:
        return said("gil", case(used, pool={**GIL, **pool}, profile="thread", threads=4)).verdict

    assert verdict({"cpu_per_call": 0.01}) == FINE
    assert verdict({"cpu_per_call": None}) == TOO_LITTLE
    assert verdict(parallelism=0.0) == TOO_LITTLE
    assert verdict(gil="off") == FINE
    assert verdict(parallelism=1.5) == FINE
    assert said("gil", case(pool=GIL)).verdict == NONE


def test_more_threads_than_the_cores_run_are_too_many() -> None:
    off = {"parallelism": 1.9, "gil": "off"}
    advice = said("threads", case(machine=Capacity(cores=2.0), pool=off, profile="thread", threads=16)).advice
    assert advice is not None
    assert advice.sentence == "threads 16 on 2 cores, factor 1.9: threads 16 to 4"
    assert said("threads", case(pool=off, profile="thread", threads=8)).verdict == FINE
    assert said("threads", case({"cpu_per_call": 0.01}, pool=off, profile="thread", threads=16)).verdict == FINE
    assert said("threads", case({"cpu_per_call": None}, pool=off, profile="thread", threads=16)).verdict == TOO_LITTLE
    assert said("threads", case(pool=GIL, profile="thread", threads=16)).verdict == NONE


def test_spawned_workers_that_could_share_their_memory_ask_for_a_template() -> None:
    advice = said("preload", case()).advice
    assert advice is not None
    assert (dict(advice.values), advice.cost) == ({"preload": "on"}, "up to -594 MiB")
    assert said("preload", case(mb=29.0)).verdict == FINE
    leaky = case(mb=629.0)
    leaked = growth(100.0, calls=6000, samples=40)  # of its memory, 600 MiB
    leaky = replace(leaky, workers=(replace(leaky.workers[0], growth=leaked),))
    assert said("preload", leaky).verdict == FINE, "leaked memory is none that a template could share"
    assert said("preload", case(mb=-1.0)).verdict == TOO_LITTLE
    assert said("preload", case(pool={"template": template("ready")})).verdict == FINE
    assert said("preload", case(pool={"template": template("refused", reason="unsafe")})).verdict == NONE
    assert said("preload", case(pool={"template": template("refused", reason="no_preload")})).verdict == ADVISED
    assert said("preload", case(profile="thread")).verdict == NONE


def test_workers_that_live_hardly_longer_than_they_load_should_live_longer() -> None:
    assert values("ttl", case(ttl=39)) == {"ttl": 40.0}
    assert said("ttl", case(ttl=40)).verdict == FINE
    assert said("ttl", case()).verdict == NONE
    assert said("ttl", case(ttl=39, pool={"load_seconds": 0.0})).verdict == TOO_LITTLE


def test_the_same_holds_for_a_limit_of_calls_at_the_present_rate() -> None:
    assert values("max_requests", case(max_requests=99)) == {"max_requests": 100}
    assert said("max_requests", case(max_requests=100)).verdict == FINE
    assert said("max_requests", case()).verdict == NONE
    assert said("max_requests", case(max_requests=99, pool={"load_seconds": 0.0})).verdict == TOO_LITTLE


def test_a_queue_that_is_shorter_than_what_can_be_served_is_made_longer() -> None:
    assert values("queue_limit", case({"refused": 60}, queue_limit=49)) == {"queue_limit": 50}
    assert said("queue_limit", case({"refused": 60}, queue_limit=50)).verdict == FINE
    assert said("queue_limit", case({"refused": 59}, queue_limit=49)).verdict == FINE


def test_a_queue_in_which_calls_wait_in_vain_is_made_shorter() -> None:
    assert values("queue_limit", case({"timed_out": 60}, queue_limit=101)) == {"queue_limit": 50}
    assert said("queue_limit", case({"timed_out": 60}, queue_limit=100)).verdict == FINE
    assert said("queue_limit", case({"timed_out": 59}, queue_limit=101)).verdict == FINE


def test_calls_that_overrun_their_deadline_ask_for_more_time_or_a_look_at_their_stacks() -> None:
    given = case({"overran": 300})
    assert values("call_timeout", given) == {"call_timeout": 120.0}
    assert "snakepit dump" in said("call_timeout", given).evidence
    assert said("call_timeout", case({"overran": 299})).verdict == FINE


def test_starts_that_come_close_to_their_timeout_ask_for_a_longer_one() -> None:
    assert values("startup", case(pool={"load_seconds": 42.0})) == {"startup_timeout": 200.0}
    assert said("startup", case(pool={"load_seconds": 41.9})).verdict == FINE
    assert said("startup", case(pool={"load_seconds": 0.0})).verdict == TOO_LITTLE


def test_advice_stays_within_the_range_of_its_field() -> None:
    assert said("call_timeout", case({"overran": 300}, call_timeout=86_400)).verdict == FINE
    assert values("call_timeout", case({"overran": 300}, call_timeout=50_000)) == {"call_timeout": 86_400.0}


def test_workers_of_other_pools_and_pools_without_a_row_do_not_count() -> None:
    workers = [
        worker("p-1", memory_mb=100.0),
        worker("q-1", memory_mb=900.0),
        worker("p-2", state="starting", memory_mb=5.0),
    ]
    found = recommend([case(WAITS).pool], {"p": PoolSpec(name="p", adapter="a", size=4)}, workers)
    assert {one.key: one.cost for one in found}["queue:p"] == "+200 MiB"
    assert recommend([case(WAITS).pool], {}, workers) == []

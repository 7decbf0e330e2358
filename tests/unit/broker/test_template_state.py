"""A pool's decisions about its template, scene by scene."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit.pools.broker.pool.template_state import TemplateState
from snakepit.pools.broker.pool.worker import State
from snakepit.pools.broker.ports import Exit
from snakepit.pools.broker.spec import InvalidSpec, PoolSpec


def template(t: Any) -> Any:
    return t.pool.worker_set.template


def test_workers_wait_for_the_template_and_are_forked_from_it(table: Any) -> None:
    t = table(size=3, preload="auto")
    assert t.prepared() == ["p-0-t1"]
    assert t.started() == []
    t.load(1)
    assert t.origins() == {1: "p-0-t1", 2: "p-0-t1", 3: "p-0-t1"}
    (told,) = t.told("template.started")
    assert "ready" in told.message
    assert told.data == {"load_seconds": 2.0}


@pytest.mark.parametrize(
    ("fields", "reason"), [({"preload": "off"}, "off"), ({"preload": "auto", "profile": "thread"}, "thread_profile")]
)
def test_a_definition_without_a_template_spawns_workers_with_the_reason(table: Any, fields: Any, reason: str) -> None:
    t = table(size=2, **fields)
    assert t.prepared() == []
    assert t.origins() == {1: "", 2: ""}
    assert template(t).state is TemplateState.OFF
    assert template(t).reason == reason
    assert template(t).why


def test_preload_on_is_refused_for_the_thread_profile() -> None:
    with pytest.raises(InvalidSpec, match="preload: 'on' is for the process profile"):
        PoolSpec(name="p", adapter="a", profile="thread", preload="on")  # type: ignore[arg-type]
    with pytest.raises(InvalidSpec, match="preload: 'always' is not one of auto, on, off"):
        PoolSpec(name="p", adapter="a", preload="always")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("preload", "reason", "level"),
    [
        ("auto", "no_preload", "info"),
        ("auto", "unsafe", "warning"),
        ("on", "no_preload", "warning"),
        ("on", "load_failed", "warning"),
    ],
)
def test_a_refused_template_is_reported_with_its_reason_and_workers_are_spawned(
    table: Any, preload: str, reason: str, level: str
) -> None:
    t = table(size=2, preload=preload)
    t.refuse(1, reason, "a thread runs")
    t.lose(1, Exit(code=3))
    assert t.origins() == {1: "", 2: ""}
    (told,) = t.told("template.refused")
    assert (told.reason, told.level) == (reason, level)
    assert told.message == "workers are spawned one by one: a thread runs"
    assert (template(t).state, template(t).reason) == (TemplateState.REFUSED, reason)
    assert not t.told("template.died"), "it ends by itself, which is no death"


def test_an_unsafe_template_is_not_tried_again_until_there_is_something_new(table: Any) -> None:
    t = table(preload="auto")
    t.refuse(1, "unsafe")
    t.ready(1)
    t.pass_time(10_000.0)
    t.die(1)
    assert t.prepared() == ["p-0-t1"]
    assert t.origins() == {1: "", 2: ""}
    t.ready(2)
    t.apply(env={"MODEL": "new"})
    assert t.prepared() == ["p-0-t1", "p-0-t2"]


def test_a_template_that_failed_to_load_is_tried_again_after_a_minute(table: Any) -> None:
    t = table(preload="auto", death_budget=100)
    t.refuse(1, "load_failed")
    t.ready(1)
    t.pass_time(59.0)
    t.die(1)
    assert t.prepared() == ["p-0-t1"]
    t.ready(2)
    t.pass_time(2.0)
    t.die(2)
    assert t.prepared() == ["p-0-t1", "p-0-t2"]
    assert t.count(State.STARTING) == 0


def test_forks_are_bounded_by_number_and_not_spaced_by_time(table: Any) -> None:
    t = table(size=20, preload="auto", startup_batch=3, startup_delay=1000.0).load(1)
    assert len(t.started()) == 3
    for worker in range(1, 18):
        t.ready(worker)
        assert len(t.started()) == worker + 3
        assert t.count(State.STARTING) == 3


def test_a_forked_worker_that_cannot_be_set_up_backs_off_like_any_other(table: Any) -> None:
    t = table(size=3, preload="auto", boot_budget=100).load(1)
    for worker in (1, 2, 3):
        t.fail_boot(worker)
    assert t.count(State.STARTING) == 0
    t.pass_time(5.0)
    assert t.count(State.STARTING) == 1
    t.ready(4)
    assert t.count(State.STARTING) == 2


def test_workers_outlive_a_dead_template_and_the_next_start_makes_a_new_one(table: Any) -> None:
    t = table(size=2, preload="auto").load(1).ready(1, 2)
    call = t.submit()
    t.lose(1)
    assert t.states() == {1: "ready", 2: "ready"}
    assert t.killed() == []
    assert t.failed() == {}
    assert t.prepared() == ["p-0-t1"], "no template is missing: none is needed yet"
    (died,) = t.told("template.died")
    assert "SIGKILL" in died.message
    t.die(2)
    assert t.prepared() == ["p-0-t1", "p-0-t2"]
    t.load(2)
    assert t.origins()[3] == "p-0-t2"
    assert call == 1


def test_templates_that_die_again_and_again_are_given_up_for_a_while(table: Any) -> None:
    t = table(preload="auto")
    for number in (1, 2, 3):
        assert t.started() == []
        t.lose(number, Exit(signal=11))
    assert t.origins() == {1: ""}
    (told,) = t.told("template.refused")
    assert told.reason == "template_deaths"
    assert "3 templates died within 60 s" in told.message
    assert "SIGSEGV" in told.message


def test_a_template_that_does_not_load_in_time_is_ended_and_given_up(table: Any) -> None:
    t = table(preload="auto", startup_timeout=10.0)
    t.pass_time(9.9)
    assert t.dismissed() == []
    t.pass_time(0.2)
    assert t.dismissed() == ["p-0-t1"]
    assert template(t).reason == "load_timeout"
    assert t.origins() == {1: ""}
    t.load(1)
    assert template(t).state is TemplateState.REFUSED, "it spoke after its time"


@pytest.mark.parametrize("change", ["definition", "operator"])
def test_a_new_definition_or_a_recycled_pool_makes_a_new_template_before_its_rollout(table: Any, change: str) -> None:
    t = table(size=2, preload="auto").load(1).ready(1, 2)
    if change == "operator":
        t.recycle()
    else:
        t.apply(args={"model": "b"})
    assert t.dismissed() == ["p-0-t1"]
    assert t.prepared() == ["p-0-t1", "p-0-t2"]
    assert t.states() == {1: "ready", 2: "ready"}, "they serve until their successors are there"
    t.load(2)
    assert t.origins()[3] == "p-0-t2"
    (ended,) = t.told("template.ended")
    assert ended.reason == change


def test_one_recycled_worker_comes_from_the_template_that_is_there(table: Any) -> None:
    t = table(size=2, preload="auto").load(1).ready(1, 2)
    t.recycle(1)
    assert t.prepared() == ["p-0-t1"]
    assert t.origins()[3] == "p-0-t1"


def test_a_definition_that_changes_no_worker_keeps_its_template(table: Any) -> None:
    t = table(size=1, preload="auto").load(1).ready(1)
    t.apply(size=2, queue_limit=5)
    assert t.dismissed() == []
    assert t.origins()[2] == "p-0-t1"


def test_reports_of_an_outdated_template_are_ignored(table: Any) -> None:
    t = table(preload="auto")
    t.apply(args={"model": "b"})
    t.load(1)
    t.refuse(1)
    t.lose(1)
    assert t.started() == []
    assert not t.told("template.died")
    t.load(2)
    assert t.origins() == {1: "p-0-t2"}


def test_workers_that_do_not_come_out_count_once_against_their_template_and_never_against_the_pool(table: Any) -> None:
    t = table(size=5, preload="auto", boot_budget=1).load(1)
    for worker in (1, 2, 3, 4, 5):
        t.unforked(worker)
    assert t.dismissed() == ["p-0-t1"]
    assert t.prepared() == ["p-0-t1", "p-0-t2"]
    assert len(t.told("template.died")) == 1
    assert not t.told("pool.failed")
    t.load(2)
    assert t.count(State.STARTING) == 5


def test_a_closing_pool_ends_its_template(table: Any) -> None:
    t = table(preload="auto").load(1).ready(1)
    t.do(t.pool.close(t.now))
    assert t.dismissed() == ["p-0-t1"]
    assert t.prepared() == ["p-0-t1"]


def test_a_pool_without_an_interpreter_prepares_nothing(table: Any) -> None:
    t = table(preload="off")
    t.pool.worker_set.gate.block("no interpreter")
    t.apply(preload="auto", args={"a": 1})
    assert t.prepared() == []

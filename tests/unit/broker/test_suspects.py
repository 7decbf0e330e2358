"""A command that ends its workers is refused, and the other commands of its pool are served."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from snakepit.pools.broker.pool.batches import SURE, BatchRule
from snakepit.pools.broker.pool.calls import Call
from snakepit.pools.broker.pool.suspects import Suspects
from snakepit.pools.broker.ports import Exit

MORE = {"death_budget": 3, "startup_delay": 0.0, "queue_timeout": 5.0}


def kill(t: Any, times: int, command: str = "kills", **fields: Any) -> list[int]:
    """Have so many workers die of a call of this command, each as soon as it is ready."""
    calls = []
    for _ in range(times):
        calls.append(t.submit(command=command, **fields))
        t.pass_time(0.0)
        starting = [worker for worker, state in t.states().items() if state == "starting"]
        t.ready(*starting)
        (worker,) = [worker for call, worker in t.assigned() if call == calls[-1]]
        t.die(worker, begun={calls[-1]})
    return calls


def test_a_command_beyond_the_budget_is_refused_and_others_are_served(table: Any) -> None:
    t = table(**MORE)
    kill(t, 4)
    (event,) = t.told("command.suspended")
    assert event.message.startswith("`kills` ended its worker 4 times within 60 s; the last one: signal SIGSEGV")
    assert event.data["command"] == "kills"
    assert not t.told("pool.failed")
    refused = t.error(t.submit(command="kills"))
    assert (refused.code, refused.outcome) == ("command_suspended", "not_started")
    assert 1.0 <= refused.retry_after <= 2.4
    assert f"The next call is tried in {refused.retry_after:g} s." in refused.message
    other = t.submit(command="run")
    t.pass_time(0.0)
    t.ready(5)
    assert t.assigned()[-1] == (other, 5), "its worker started at once"


def test_the_waiting_calls_of_a_suspended_command_are_refused_and_others_wait(table: Any) -> None:
    t = table(**MORE)
    kill(t, 3)
    t.pass_time(0.0)
    last, kills, other = t.submit(command="kills"), t.submit(command="kills"), t.submit(command="run")
    t.ready(4)
    t.die(4, begun={last})
    assert t.failed()[last] == "worker_lost"
    assert t.failed()[kills] == "command_suspended"
    t.pass_time(0.0)
    t.ready(5)
    assert t.assigned()[-1] == (other, 5)


def test_an_idempotent_call_that_kills_is_not_tried_again_once_its_command_is_suspended(table: Any) -> None:
    t = table(**MORE, retry_budget=1.0)
    call = t.submit(command="kills", idempotent=True)
    for worker in (1, 2, 3, 4):
        t.ready(worker)
        t.die(worker, begun={call})
        t.pass_time(0.0)
    assert t.error(call).code == "worker_lost"
    assert t.error(call).outcome == "unknown"


def test_one_call_is_let_through_after_the_pause_and_resumes_its_command(table: Any) -> None:
    t = table(**MORE)
    kill(t, 4)
    t.pass_time(3.0)
    t.ready(5)
    trial, beside = t.submit(command="kills"), t.submit(command="kills")
    assert t.assigned()[-1] == (trial, 5)
    assert "A call of it is tried now" in t.error(beside).message
    t.finish(5, trial)
    assert [event.data["command"] for event in t.told("command.resumed")] == ["kills"]
    again = t.submit(command="kills")
    assert t.assigned()[-1] == (again, 5)
    assert t.pool.worker_set.gate.suspects.describe(t.now) == ""


def test_a_trial_that_ends_without_an_answer_makes_room_for_the_next(table: Any) -> None:
    t = table(**MORE)
    kill(t, 4)
    t.pass_time(3.0)
    t.cancel(t.submit(command="kills"))  # no worker is ready: it waits
    t.ready(5)
    trial = t.submit(command="kills")
    assert t.assigned()[-1] == (trial, 5)


def test_a_command_that_goes_on_killing_has_few_tries_in_a_minute(table: Any) -> None:
    t = table(death_budget=5, startup_delay=0.0, queue_timeout=600.0)
    served = 0
    for _ in range(600):
        t.pass_time(0.1)
        for worker, state in t.states().items():
            if state == "starting":
                t.ready(worker)
        t.submit(command="kills")
        other = t.submit(command="run")
        for worker in list(t.states()):
            held = list(t.worker(worker).assigned.values())
            if held and held[0].command == "kills":
                t.die(worker, begun={held[0].id})
            elif held:
                t.finish(worker, held[0].id)
        served += other not in t.failed()
    assert t.pool.worker_set.died <= 6 + 6, "the pauses are 2, 4, 8, 16, 32 and 60 s"
    assert served == 600
    assert not t.told("pool.failed")


def test_kills_from_outside_blame_no_command(table: Any) -> None:
    t = table(**MORE)
    for worker in (1, 2, 3, 4):
        t.ready(worker)
        for _ in range(5):
            t.finish(worker, t.submit(command="run"))
        t.die(worker, Exit(signal=9), begun={t.submit(command="run")})
        t.pass_time(0.0)
    assert not t.told("command.suspended")
    assert t.told("pool.failed")


def test_of_the_commands_beside_each_other_the_one_that_never_ends_well_is_to_blame(table: Any) -> None:
    t = table(**MORE, profile="thread", threads=4)
    for worker in (1, 2, 3, 4):
        t.ready(worker)
        for _ in range(3):
            t.finish(worker, t.submit(command="run"))
        t.die(worker, begun={t.submit(command="kills"), t.submit(command="run")})
        t.pass_time(0.0)
    assert [event.data["command"] for event in t.told("command.suspended")] == ["kills"]
    assert not t.told("pool.failed")


def test_deaths_without_a_call_fail_the_pool_with_the_time_of_the_next_start(table: Any) -> None:
    t = table(**{**MORE, "queue_timeout": 1.0})
    for worker in (1, 2, 3, 4):
        t.ready(worker)
        t.die(worker)
        t.pass_time(0.0)
    error = t.error(t.submit())
    assert error.code == "pool_failed"
    assert f"it tries again in {error.retry_after:g} s." in error.message
    assert 1.0 <= error.retry_after <= 2.4


def test_a_new_definition_and_an_operator_give_a_suspended_command_another_chance(table: Any) -> None:
    t = table(**MORE)
    kill(t, 4)
    assert t.error(t.submit(command="kills")).code == "command_suspended"
    t.recycle()
    t.pass_time(0.0)
    t.ready(*[worker for worker, state in t.states().items() if state == "starting"])
    assert t.submit(command="kills") not in t.failed()


def test_a_suspension_that_nothing_calls_is_not_shown_for_ever(table: Any) -> None:
    t = table(**MORE)
    kill(t, 4)
    suspects = t.pool.worker_set.gate.suspects
    assert suspects.names(t.now) == ("kills",)
    assert "calls are refused: `kills` ended its worker 4 times" in suspects.describe(t.now)
    assert suspects.names(t.now + 70.0) == ()


def test_good_calls_from_before_the_last_minute_do_not_hide_a_command_that_kills_now(table: Any) -> None:
    t = table(**MORE)
    kill(t, 1)
    t.pass_time(0.0)
    t.ready(2)
    for _ in range(50):
        t.finish(2, t.submit(command="kills"))
    t.pass_time(3600.0)
    last = t.submit(command="kills")
    t.die(2, begun={last})
    kill(t, 3)
    assert [event.data["command"] for event in t.told("command.suspended")] == ["kills"]
    assert not t.told("pool.failed")


def test_calls_that_ran_when_their_command_was_suspended_do_not_make_the_pause_longer(table: Any) -> None:
    t = table(**MORE, size=6)
    t.pass_time(0.0)
    t.ready(*range(1, 7))
    calls = {t.submit(command="kills") for _ in range(6)}
    for call, worker in t.assigned():
        assert call in calls
        t.die(worker, begun={call})
    assert len(t.told("command.suspended")) == 1
    assert t.error(t.submit(command="kills")).retry_after <= 2.4
    assert not t.told("pool.failed")


def test_the_end_of_another_worker_does_not_refuse_a_trial_that_waits(table: Any) -> None:
    t = table(**MORE)
    kill(t, 4)
    t.pass_time(0.0)
    t.ready(5)
    other = t.submit(command="run")
    t.pass_time(3.0)
    trial = t.submit(command="kills")
    t.die(5, begun={other})
    assert trial not in t.failed()
    t.pass_time(0.0)
    t.ready(6)
    assert trial in {call for call, _ in t.assigned()}


@pytest.mark.parametrize("name", [f"kills{number}" for number in range(6)])
def test_of_two_commands_with_as_many_deaths_the_one_with_fewer_good_ends_is_to_blame(table: Any, name: str) -> None:
    t = table(**MORE, profile="thread", threads=4)
    for worker in (1, 2, 3, 4):
        t.ready(worker)
        if worker > 1:
            t.finish(worker, t.submit(command="run"))
        t.die(worker, begun={t.submit(command="run"), t.submit(command=name)})
        t.pass_time(0.0)
    assert [event.data["command"] for event in t.told("command.suspended")] == [name]


def test_a_trial_that_runs_for_long_does_not_hold_up_its_command(table: Any) -> None:
    t = table(**MORE, size=2)
    kill(t, 4)
    t.pass_time(3.0)
    t.ready(*[worker for worker, state in t.states().items() if state == "starting"])
    first = t.submit(command="kills", deadline=t.now + 600.0)
    t.pass_time(59.0)
    assert t.error(t.submit(command="kills")).code == "command_suspended"
    t.pass_time(2.0)
    second = t.submit(command="kills", deadline=t.now + 600.0)
    assert t.error(t.submit(command="kills")).code == "command_suspended"
    at = dict(t.assigned())
    assert second in at
    t.finish(at[first], first)
    assert len(t.told("command.resumed")) == 1


def test_a_command_that_kills_every_second_batch_is_suspended(table: Any) -> None:
    t = table(**MORE)
    t.pool.dispatcher.batches.set_rules({"kills": BatchRule(8, 0.0)})
    times = t.pool.dispatcher.batches.times["kills"]
    for _ in range(SURE):  # else some calls run alone, for the comparison
        times.record(1, 0.010)
    for _ in range(4):
        t.ready(*[worker for worker, state in t.states().items() if state == "starting"])
        for dies in (False, True):
            (worker,) = t.states()
            other, times.turns = t.submit(command="run"), 1
            calls = [t.submit(command="kills") for _ in range(8)]  # they wait for the slot
            t.finish(worker, other)
            assert set(t.worker(worker).assigned) == set(calls)
            if dies:
                t.die(worker, begun=set(calls))
            else:
                for call in calls:
                    t.finish(worker, call)
        t.pass_time(0.0)
    assert [event.data["command"] for event in t.told("command.suspended")] == ["kills"]
    assert not t.told("pool.failed")


def call(number: int, command: str = "kills") -> Call:
    return Call(number, command, arrived=0.0, deadline=600.0)


def die(suspects: Suspects, times: int, command: str = "kills", *, now: float = 0.0, allowed: int = 3) -> list[str]:
    """Note so many deaths of a command; return what the last of them suspends."""
    found: list[str] = []
    for _ in range(times):
        suspects.died({command}, now)
        found = suspects.suspend({command}, allowed, "signal SIGSEGV", now)
    return found


def pause(suspects: Suspects, now: float = 0.0) -> float:
    return suspects.suspended["kills"].until - now


@pytest.mark.parametrize(("allowed", "times", "found"), [(3, 3, []), (3, 4, ["kills"]), (0, 2, []), (0, 3, ["kills"])])
def test_a_command_is_suspended_above_the_budget_and_from_three_deaths_on(
    allowed: int, times: int, found: list[str]
) -> None:
    assert die(Suspects(Random(1)), times, allowed=allowed) == found


def test_no_more_commands_are_suspended_than_the_budget_needs() -> None:
    suspects = Suspects(Random(1))
    die(suspects, 3, "also", allowed=9)
    die(suspects, 3, allowed=9)
    assert die(suspects, 1) == ["kills"]
    assert suspects.unexplained == 3


def test_a_command_in_its_pause_is_not_suspended_again_by_the_deaths_of_another_one() -> None:
    suspects = Suspects(Random(1))
    die(suspects, 4)
    ends = pause(suspects)
    assert die(suspects, 4, "other") == ["other"]
    assert pause(suspects) == ends


def test_only_the_end_of_its_trial_resumes_a_command() -> None:
    suspects = Suspects(Random(1))
    die(suspects, 4)
    assert suspects.refusal(call(9), {9}, 10.0) is None
    assert suspects.ended([call(5), call(9, "run")]) == []
    assert suspects.ended([call(9)]) == ["kills"]


@pytest.mark.parametrize(("between", "least"), [("run", 1.6), ("kills", 3.2)])
def test_the_next_pause_is_as_the_first_once_a_minute_had_only_deaths_of_others(between: str, least: float) -> None:
    suspects = Suspects(Random(1))
    die(suspects, 4)
    assert 1.6 <= pause(suspects) <= 2.4
    suspects.refusal(call(9), {9}, 10.0)
    suspects.ended([call(9)])
    die(suspects, 1, between, now=60.0)  # the earlier deaths, of a minute ago, do not count any more
    assert suspects.unexplained == 1
    die(suspects, 4, now=61.0)
    assert least <= pause(suspects, 61.0) <= 1.5 * least


def test_the_reason_has_the_number_of_deaths() -> None:
    suspects = Suspects(Random(1))
    die(suspects, 4)
    assert die(suspects, 1, now=70.0) == ["kills"]
    assert suspects.describe(70.0).startswith("calls are refused: `kills` ended its worker once within 60 s")


def test_a_reset_forgets_deaths_good_ends_and_earlier_pauses() -> None:
    suspects = Suspects(Random(1))
    die(suspects, 4)
    suspects.refusal(call(9), {9}, 10.0)
    suspects.ended([call(number) for number in range(10)])
    suspects.reset()
    assert suspects.unexplained == 0
    assert die(suspects, 4, now=20.0) == ["kills"]
    assert 1.6 <= pause(suspects, 20.0) <= 2.4

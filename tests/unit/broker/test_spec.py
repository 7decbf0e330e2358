"""A pool's definition: what is refused, and in which words."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from snakepit.pools.broker.spec import FIELDS, InvalidSpec, PoolSpec, Profile, find_problems, spec_from, spec_values

BASE: dict[str, Any] = {"name": "p", "adapter": "a"}
RANGED = [name for name, field in FIELDS.items() if field.metadata.get("low") is not None]
# Fields that cannot be moved to the end of their range alone.
COMPANIONS: dict[str, dict[str, Any]] = {
    "max_surge": {"max_unavailable": 1},
    "max_unavailable": {"size": 1000},
    "memory_soft_mb": {"memory_hard_mb": None},
}


def problems_of(**values: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        PoolSpec(**{**BASE, **values})
    return caught.value.problems


@pytest.mark.parametrize("name", RANGED)
def test_both_ends_of_a_fields_range_are_allowed_and_what_is_beyond_is_refused(name: str) -> None:
    low, high = FIELDS[name].metadata["low"], FIELDS[name].metadata["high"]
    companions = {**BASE, **COMPANIONS.get(name, {})}
    for value in (low, high):
        assert getattr(PoolSpec(**companions, **{name: value}), name) == value
    step = 1 if str(FIELDS[name].type).startswith("int") else 0.01
    for value in (low - step, high + step):
        assert problems_of(**{name: value}) == {name: f"{value} is outside {low} to {high}"}


@pytest.mark.parametrize("name", RANGED)
@pytest.mark.parametrize("value", ["3", True, math.nan, math.inf, [], {}, 10**400, -(10**400)])
def test_what_is_no_number_of_that_kind_is_refused_by_name_and_value(name: str, value: Any) -> None:
    (problem,) = problems_of(**{name: value}).items()
    assert problem[0] == name
    assert problem[1].startswith((f"{value!r} is not a number", f"{value} is outside"))


@pytest.mark.parametrize("name", [name for name in RANGED if str(FIELDS[name].type).startswith("int")])
def test_a_fraction_is_no_count(name: str) -> None:
    assert problems_of(**{name: 1.5}) == {name: "1.5 is not a whole number"}


@pytest.mark.parametrize("name", RANGED)
def test_nothing_is_a_value_only_where_it_means_off(name: str) -> None:
    if "None" in str(FIELDS[name].type):
        assert getattr(PoolSpec(**BASE, **{name: None}), name) is None
    else:
        assert problems_of(**{name: None}) == {name: "must have a value"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("name", "", "is not a pool name"),
        ("name", "Digits", "'Digits' is not a pool name"),
        ("name", "1a", "a letter first"),
        ("name", "a" * 49, "at most 48"),
        ("name", "a\n", "is not a pool name"),
        ("name", "../a", "is not a pool name"),
        ("name", 3, "3 is not a pool name"),
        ("adapter", "", "needs the key of an adapter"),
        ("adapter", None, "needs the key of an adapter"),
        ("profile", "fibre", "'fibre' is not one of process, thread"),
        ("profile", None, "None is not one of"),
        ("profile", ["thread"], "is not one of"),
        ("python", None, "None is not a path"),
        ("python", "/usr/bin/py\0thon", "is not a path"),
        ("args", [], "an object whose keys are argument names"),
        ("args", {"not an identifier": 1}, "argument names"),
        ("args", {1: 1}, "argument names"),
        ("env", "A=B", "an object of strings"),
        ("env", {"A": 1}, "the value of A must be a string"),
        ("env", {"PYTHONPATH": "/tmp"}, "is set by the broker itself"),
        ("env", {"SNAKEPIT_INSTANCE": "x"}, "is set by the broker itself"),
        ("env", {"A": "\0"}, "the value of A"),
        ("env", {"": "x"}, "'' is not the name"),
        ("env", {"A=B": "x"}, "'A=B' is not the name"),
        ("env", {"A\0": "x"}, "is not the name"),
        ("enabled", 1, "1 is not true or false"),
        ("paused", "no", "'no' is not true or false"),
    ],
)
def test_what_does_not_fit_a_field_is_named_with_it(name: str, value: Any, words: str) -> None:
    problems = problems_of(**{name: value})
    assert list(problems) == [name]
    assert words in problems[name]


def test_all_problems_are_reported_together_in_one_sentence() -> None:
    with pytest.raises(InvalidSpec) as caught:
        PoolSpec(name="p", adapter="a", size=0, threads=999)
    assert str(caught.value) == "size: 0 is outside 1 to 1000; threads: 999 is outside 1 to 256"


def test_fields_that_contradict_each_other_are_refused() -> None:
    assert "set one of them to 1" in problems_of(max_surge=0)["max_surge"]
    assert problems_of(size=2, max_unavailable=3) == {"max_unavailable": "3 is more than size 2"}
    assert "200.0 is not below memory_hard_mb 100.0" in problems_of(memory_soft_mb=200.0, memory_hard_mb=100.0).get(
        "memory_soft_mb", ""
    )
    assert PoolSpec(**BASE, max_surge=0, max_unavailable=1).max_surge == 0


def test_an_unknown_key_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(InvalidSpec) as caught:
        spec_from({**BASE, "queue_limt": 5, "zzz": 1})
    assert caught.value.problems == {
        "queue_limt": "is not a field of a pool; did you mean queue_limit?",
        "zzz": "is not a field of a pool",
    }
    with pytest.raises(InvalidSpec, match="7: is not a field"):
        spec_from({**BASE, 7: 1})  # type: ignore[dict-item]


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_a_help_text(name: str) -> None:
    assert FIELDS[name].metadata["help"].endswith(".")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("adapter", "b"),
        ("args", {"a": 1}),
        ("env", {"A": "1"}),
        ("profile", "thread"),
        ("threads", 3),
        ("python", "/usr/bin/python3"),
    ],
)
def test_what_is_fixed_at_birth_needs_new_workers(name: str, value: Any) -> None:
    assert PoolSpec(**{**BASE, name: value}).needs_new_workers(PoolSpec(**BASE))


@pytest.mark.parametrize("name", sorted(set(RANGED) - {"threads"}))
def test_what_only_the_pool_looks_at_needs_no_new_workers(name: str) -> None:
    other = PoolSpec(**{**BASE, **COMPANIONS.get(name, {}), name: FIELDS[name].metadata["high"]})
    assert not other.needs_new_workers(PoolSpec(**BASE))


def test_a_profile_given_as_text_is_the_same_profile() -> None:
    text, member = PoolSpec(**BASE, profile="thread"), PoolSpec(**BASE, profile=Profile.THREAD)
    assert text.slots == member.slots == 10
    assert not text.needs_new_workers(member)
    assert text == member


def test_a_spec_goes_through_json_and_comes_back() -> None:
    spec = PoolSpec(**BASE, profile="thread", args={"a": [1]}, env={"A": "b"}, ttl=5.0)
    assert spec_from(json.loads(json.dumps(spec_values(spec)))) == spec


def test_deaths_allowed_follow_the_size_unless_they_are_given() -> None:
    assert PoolSpec(**BASE, size=3).deaths_allowed == 30
    assert PoolSpec(**BASE, size=3, death_budget=4).deaths_allowed == 4


def test_a_valid_spec_has_no_problems() -> None:
    assert find_problems(PoolSpec(**BASE)) == []


def test_thread_checks_need_threads() -> None:
    with pytest.raises(InvalidSpec, match="thread_checks: one thread has nothing to check"):
        PoolSpec(name="a", adapter="a", thread_checks=True)
    assert PoolSpec(name="a", adapter="a", profile="thread", thread_checks=True).thread_checks

"""The limits of jobs in a pool's definition: what is valid, what an error says, and the key of an argument."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit.pools.broker.job_limits import find_problem, key_of
from snakepit.pools.broker.spec import InvalidSpec, PoolSpec, spec_values

TENANT = {"by": "argument:tenant", "per_minute": 60}


def test_a_definition_takes_one_limit_of_each_kind() -> None:
    limits = [{"by": "pool", "running": 20}, {"by": "owner", "running": 4, "per_minute": 9}, TENANT]
    spec = PoolSpec(name="mail", adapter="mail", job_limits=limits)  # type: ignore[arg-type]
    assert spec_values(spec)["job_limits"] == limits
    assert not spec.needs_new_workers(PoolSpec(name="mail", adapter="mail"))


@pytest.mark.parametrize(
    ("limits", "part"),
    [
        ("owner", "must be a list"),
        ({"by": "owner"}, "must be a list"),
        (["owner"], "entry 0: must be an object"),
        ([TENANT, {"by": "user", "running": 1}], "entry 1: by: 'user' is not pool, owner, or argument:"),
        ([{"by": "argument:", "running": 1}], "entry 0: by: 'argument:' is not"),
        ([{"by": ["pool"], "running": 1}], "entry 0: by: ['pool'] is not"),
        ([{"running": 1}], "entry 0: by: None is not"),
        ([{"by": "pool", "runing": 1}], "entry 0: 'runing' is not a key of a limit"),
        ([{"by": "pool", "running": 0}], "entry 0: running: 0 is not a whole number from 1"),
        ([{"by": "pool", "running": True}], "entry 0: running: True is not"),
        ([{"by": "pool", "per_minute": 1.5}], "entry 0: per_minute: 1.5 is not"),
        ([{"by": "pool", "running": None}], "entry 0: has no limit"),
        ([{"by": "pool", "running": 1}, {"by": "pool", "per_minute": 1}], "has 2 limits by pool"),
        ([TENANT, {"by": "argument:region", "running": 1}], "has 2 limits by an argument"),
    ],
)
def test_an_error_has_the_entry_and_the_reason(limits: Any, part: str) -> None:
    assert (find_problem(limits) or "").startswith(part)
    with pytest.raises(InvalidSpec, match="job_limits: "):
        PoolSpec(name="mail", adapter="mail", job_limits=limits)


def test_the_key_follows_the_value_of_the_argument_and_its_type() -> None:
    keys = [key_of([TENANT], {"tenant": value, "text": "a"}) for value in (7, "7", None, {"a": 1, "b": 2})]
    assert len(set(keys)) == 4
    assert key_of([TENANT], {"tenant": {"b": 2, "a": 1}, "text": "b"}) == keys[3]
    absent = key_of([TENANT], {})
    assert absent
    assert absent not in keys, "leaving an argument out evades no limit"
    assert key_of([{"by": "owner", "running": 1}], {"tenant": 7}) == ""

"""The sandbox in a pool's definition: what is valid, and what an error says."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit.pools.broker.sandbox import closes_network, describe, find_problem, paths_of
from snakepit.pools.broker.spec import InvalidSpec, PoolSpec, spec_values


def test_a_definition_closes_the_network_and_lists_paths() -> None:
    given = {"network": "none", "paths": ("/srv/models", "/srv/out:rw")}
    spec = PoolSpec(name="ocr", adapter="ocr", sandbox=given)
    assert closes_network(spec.sandbox)
    assert paths_of(spec.sandbox) == ("/srv/models", "/srv/out:rw")
    assert spec_values(spec)["sandbox"] == {"network": "none", "paths": ["/srv/models", "/srv/out:rw"]}
    assert spec.needs_new_workers(PoolSpec(name="ocr", adapter="ocr"))


def test_paths_that_are_left_out_are_no_limit_and_an_empty_list_is_one() -> None:
    assert paths_of({}) is None
    assert paths_of({"paths": []}) == ()
    assert not closes_network({})
    assert not closes_network({"network": "host"})
    assert describe({}) == ""
    assert describe({"network": "none", "paths": []}) == "no network; files: only what Python needs"


@pytest.mark.parametrize(
    ("sandbox", "part"),
    [
        ("none", "must be an object"),
        (["none"], "must be an object"),
        ({"net": "none"}, "'net' is not one of network, paths"),
        ({1: "none"}, "1 is not one of network, paths"),
        ({"network": True}, "network: True is not one of host, none"),
        ({"network": None}, "network: None is not one of"),
        ({"network": ["none"]}, "network: ['none'] is not one of"),
        ({"paths": "/srv"}, "paths: must be a list"),
        ({"paths": None}, "paths: must be a list"),
        ({"paths": ["srv"]}, "paths: 'srv' is not an absolute path"),
        ({"paths": [7]}, "paths: 7 is not an absolute path"),
        ({"paths": ["/srv\0"]}, "is not an absolute path"),
        ({"paths": ["/srv/../etc"]}, "has '..' in it"),
        ({"paths": ["/" + "ä" * 2048]}, "has more than 4096 bytes"),
        ({"paths": ["/srv"] * 101}, "paths: 101 are more than 100"),
    ],
)
def test_a_wrong_sandbox_is_refused_with_the_key(sandbox: Any, part: str) -> None:
    assert part in (find_problem(sandbox) or "")
    with pytest.raises(InvalidSpec, match="sandbox: "):
        PoolSpec(name="ocr", adapter="ocr", sandbox=sandbox)


@pytest.mark.parametrize("wrong", [{"paths": ["x" * 10_000]}, {"x" * 10_000: 1}, {"network": ["x" * 10_000]}])
def test_the_error_of_a_long_value_is_short(wrong: Any) -> None:
    assert len(find_problem(wrong) or "") < 300

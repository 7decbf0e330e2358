"""Settings: defaults, the single-pool form, and every mistake named with its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from snakepit.pools import conf
from snakepit.pools.broker.spec import PoolSpec

ADAPTERS = {"digits": "snakepit.examples.digits.Digits"}


def specs(**snakepit: Any) -> tuple[PoolSpec, ...]:
    with override_settings(SNAKEPIT=snakepit):
        return conf.pool_specs()


def problem(**snakepit: Any) -> str:
    with override_settings(SNAKEPIT=snakepit), pytest.raises(ImproperlyConfigured) as caught:
        conf.pool_specs()
    return str(caught.value)


def test_no_setting_is_required() -> None:
    with override_settings(SNAKEPIT={}):
        assert conf.current() == conf.Configuration()
        assert conf.pool_specs() == ()


def test_settings_are_read_again_when_they_change() -> None:
    with override_settings(SNAKEPIT={"PAGE_LIMIT": 7}):
        assert conf.current().page_limit == 7
    assert conf.current().page_limit == 200


@pytest.mark.parametrize(
    ("snakepit", "words"),
    [
        ({"ADAPTRES": {}}, 'SNAKEPIT["ADAPTRES"] is not a setting; did you mean ADAPTERS?'),
        ({"POOLSIZE": 3}, "did you mean POOL_SIZE?"),
        ({"zzz": 3}, 'SNAKEPIT["zzz"] is not a setting'),
        ({5: 3}, 'SNAKEPIT["5"] is not a setting'),
        ({"MAX_BODY": "1M"}, "SNAKEPIT[\"MAX_BODY\"]: '1M' is not a whole number"),
        ({"MAX_BODY": True}, "True is not a whole number"),
        ({"MAX_BODY": 1}, "1 is outside 1024 to 1073741824"),
        ({"SWEEP_INTERVAL": float("nan")}, "nan is outside"),
        ({"ADAPTERS": ["x"]}, "is not a dict of key: dotted path"),
        ({"ADAPTERS": {"digits": "examples/digits.py"}}, "is not a dotted path such as"),
        ({"ADAPTERS": {"digits": "Digits"}}, "is not a dotted path"),
        ({"POOLS": [1]}, 'SNAKEPIT["POOLS"]: is not a dict'),
        ({"POOLS": {"digits": 3}}, 'SNAKEPIT["POOLS"]: is not a dict'),
        ({"WORKER_PATH": "src"}, "'src' is not a list of directories"),
        ({"WORKER_ENV": ["A=B"]}, "'A=B' is not the name of an environment variable"),
        ({"NODE_NAME": 5}, "5 is not a string"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(snakepit: Any, words: str) -> None:
    with override_settings(SNAKEPIT=snakepit), pytest.raises(ImproperlyConfigured) as caught:
        conf.current()
    assert words in str(caught.value)


def test_settings_that_are_no_dict_are_refused() -> None:
    with (
        override_settings(SNAKEPIT=["x"]),
        pytest.raises(ImproperlyConfigured, match="SNAKEPIT must be a dict, not list"),
    ):
        conf.current()


def test_all_problems_are_reported_together() -> None:
    with override_settings(SNAKEPIT={"MAX_BODY": 1, "MAX_DEPTH": 0}), pytest.raises(ImproperlyConfigured) as caught:
        conf.current()
    assert len(str(caught.value).splitlines()) == 2


def test_pools_get_the_defaults_and_two_workers_a_core() -> None:
    (spec,) = specs(ADAPTERS=ADAPTERS, POOLS={"digits": {"adapter": "digits"}})
    assert spec.size == conf.default_size() >= 2
    assert spec.size % 2 == 0
    assert spec.queue_limit == 1000


@pytest.mark.parametrize(
    ("pools", "words"),
    [
        (
            {"digits": {"adapter": "digits", "size": 257}},
            '["size"]: 257 is more than SNAKEPIT["MAX_POOL_SIZE"], which is',
        ),
        ({"digits": {"adapter": "digits", "size": 0}}, 'SNAKEPIT["POOLS"]["digits"]["size"]: 0 is outside 1 to 1000'),
        ({"digits": {"adapter": "digits", "size": "2"}}, "'2' is not a number"),
        (
            {"digits": {"adapter": "digits", "sise": 2}},
            '["digits"]["sise"]: is not a field of a pool; did you mean size?',
        ),
        (
            {"digits": {"adapter": "digts"}},
            """["adapter"]: 'digts' is not a key of SNAKEPIT["ADAPTERS"]; did you mean 'digits'?""",
        ),
        ({"digits": {}}, '["digits"]["adapter"]: a pool needs the key of an adapter'),
        ({"Digits!": {"adapter": "digits"}}, "'Digits!' is not a pool name"),
        ({"digits": {"adapter": "digits", "name": "x"}}, "the pool's name is its key in POOLS"),
        ({"digits": {"adapter": "digits", "profile": "fork"}}, "'fork' is not one of process, thread"),
    ],
)
def test_a_wrong_pool_is_named_with_its_place(pools: Any, words: str) -> None:
    assert words in problem(ADAPTERS=ADAPTERS, POOLS=pools)


def test_the_single_pool_form_becomes_the_pool_default() -> None:
    (spec,) = specs(ADAPTERS=ADAPTERS, ADAPTER="digits", POOL_SIZE=3, QUEUE_LIMIT=5, PROFILE="thread", THREADS=2)
    assert (spec.name, spec.adapter, spec.size, spec.queue_limit, spec.threads) == ("default", "digits", 3, 5, 2)


def test_the_single_pool_form_takes_a_dotted_path_too() -> None:
    with override_settings(SNAKEPIT={"ADAPTER": "snakepit.examples.digits.Digits", "POOL_SIZE": 1}):
        (spec,) = conf.pool_specs()
        assert conf.adapters() == {"default": "snakepit.examples.digits.Digits"}
    assert (spec.name, spec.adapter) == ("default", "default")


def test_mistakes_of_the_single_pool_form_name_their_key() -> None:
    assert 'SNAKEPIT["POOL_SIZE"]: 0 is outside 1 to 1000' in problem(ADAPTERS=ADAPTERS, ADAPTER="digits", POOL_SIZE=0)
    assert 'SNAKEPIT["ADAPTER"] is missing: POOL_SIZE' in problem(POOL_SIZE=3)
    both = problem(ADAPTERS=ADAPTERS, ADAPTER="digits", POOLS={"default": {"adapter": "digits"}})
    assert 'SNAKEPIT["POOLS"] has a pool "default" too' in both


def test_the_runtime_directory_is_what_was_chosen(tmp_path: Path) -> None:
    with override_settings(SNAKEPIT={"RUNTIME_DIR": tmp_path}):
        assert conf.runtime_dir() == tmp_path
        assert conf.broker_address() == f"{tmp_path}/broker.sock"


def test_the_runtime_directory_is_the_users_own_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    mine = conf.runtime_dir()
    assert mine.parent == tmp_path
    assert not mine.exists()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    assert conf.runtime_dir().name == f"snakepit-{os.getuid()}-{mine.name.removeprefix('snakepit-')}"
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/snakepit:/run/other")
    assert conf.runtime_dir() == Path("/run/snakepit")


def test_two_projects_do_not_share_a_runtime_directory(settings: Any, tmp_path: Path) -> None:
    settings.BASE_DIR = tmp_path / "one"
    first = conf.runtime_dir()
    settings.BASE_DIR = tmp_path / "two"
    assert conf.runtime_dir() != first


def test_workers_find_the_projects_code(settings: Any) -> None:
    assert conf.worker_path() == [str(Path(settings.BASE_DIR).resolve())]
    settings.SNAKEPIT = {"WORKER_PATH": [Path("/srv/code")]}
    assert conf.worker_path() == ["/srv/code"]


@pytest.mark.parametrize(("user", "groups"), [("nobody", ["models", 100]), (65_534, []), ("65534", ("7",))])
def test_the_workers_user_is_a_name_or_a_number(settings: Any, user: Any, groups: Any) -> None:
    settings.SNAKEPIT = {"WORKER_USER": user, "WORKER_GROUPS": groups}
    assert list(conf.find_problems()) == []
    assert conf.current().worker_user == str(user)
    assert conf.current().worker_groups == tuple(map(str, groups))


@pytest.mark.parametrize(
    ("key", "value"),
    [("WORKER_USER", -1), ("WORKER_USER", True), ("WORKER_USER", "a\0"), ("WORKER_USER", None), ("WORKER_GROUPS", "x"),
     ("WORKER_GROUPS", [""]), ("WORKER_GROUPS", [1.5])],
)  # fmt: skip
def test_what_is_no_user_or_group_is_refused(settings: Any, key: str, value: Any) -> None:
    settings.SNAKEPIT = {key: value}
    (problem,) = conf.find_problems()
    assert problem.startswith(f'SNAKEPIT["{key}"]: ')

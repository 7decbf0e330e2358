"""`snakepit up` before it starts anything: what is refused, and what would be started."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from snakepit.pools.cli.demo import Demo, lines
from snakepit.pools.cli.host_project import Gap, HostProject
from snakepit.pools.cli.output import Problem
from snakepit.pools.cli.transport import Transport
from snakepit.pools.cli.up import Up, claim


def prepared(tmp_path: Path, **options: object) -> Up:
    up = Up(True, "127.0.0.1", 8000, **options)  # type: ignore[arg-type]
    up.runtime, up.state, up.site = tmp_path, tmp_path, "snakepit.site"
    up.transport = Transport("files", "filesystem://", warning="slow", handed=True)
    pages = (("dashboard", "/"), ("API docs", "/api/docs"))
    up.project = HostProject("shop.celery", None, pages, (Gap("Something is missing", "a line"),))
    up.secrets = Demo("snk_key", "login")
    return up


def test_a_second_up_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with claim(tmp_path / "run", tmp_path / "state"):
        with pytest.raises(Problem, match="already runs in") as refused, claim(tmp_path / "run", tmp_path / "other"):
            pass
        # A host project has settings of its own; the environment is read by the site of this package alone.
        for name in ("SNAKEPIT['RUNTIME_DIR']", "STATE_DIR", "SNAKEPIT_RUNTIME_DIR", "SNAKEPIT_STATE_DIR"):
            assert name in str(refused.value)
        with pytest.raises(Problem, match="already runs in"), claim(tmp_path / "other", tmp_path / "state"):
            pass
    with claim(tmp_path / "run", tmp_path / "state"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_a_second_terminal_gets_the_address_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SNAKEPIT_RUNTIME_DIR", raising=False)
    assert "SNAKEPIT_ADDRESS" not in prepared(tmp_path).welcome()
    monkeypatch.setenv("SNAKEPIT_RUNTIME_DIR", str(tmp_path))
    assert f"SNAKEPIT_ADDRESS={tmp_path}/broker.sock " in prepared(tmp_path).welcome()


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("sklearn", r"needs scikit-learn and NumPy.*; run: .* -m pip install 'django-snakepit\[demo\]'"),
        ("numpy", r"needs scikit-learn and NumPy.*; run: .* -m pip install 'django-snakepit\[demo\]'"),
    ],
)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, says: str
) -> None:
    monkeypatch.setattr("snakepit.pools.cli.up.installed", lambda module: module != missing)
    with pytest.raises(Problem, match=says) as refused:
        prepared(tmp_path)._check_demo()
    assert "\n" not in str(refused.value)
    without = prepared(tmp_path, web=False)
    without.demo = False
    without._check_demo()


def test_the_web_server_is_stopped_first_and_the_broker_last(tmp_path: Path) -> None:
    up = prepared(tmp_path)
    assert [program.name for program in up.programs()] == ["broker", "celery", "beat", "web"]
    web = list(up.programs())[-1]
    assert "--timeout-graceful-shutdown 2" in " ".join(web.command)
    assert "--no-proxy-headers" in web.command, "uvicorn would believe each process of this host"
    assert web.environment["SNAKEPIT_DEMO_TOKEN"] == "login"
    assert sum(program.patience for program in up.programs()) <= 5.0
    bare = prepared(tmp_path, web=False, celery=False)
    assert [program.name for program in bare.programs()] == ["broker"]


def test_a_run_goes_on_without_a_missing_part_and_names_the_line_that_adds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = prepared(tmp_path)
    assert list(up.warnings()) == ["slow", "Something is missing. Add: a line"]
    monkeypatch.setattr("snakepit.pools.cli.up.installed", lambda module: module != "uvicorn")
    assert re.fullmatch(
        r"uvicorn is not installed, so Django's development server answers; "
        r"run: .* -m pip install 'django-snakepit\[serve\]'",
        list(up.warnings())[-1],
    )
    assert "runserver" in list(up.programs())[-1].command
    up.celery = False
    assert [program.name for program in up.programs()] == ["broker", "web"]
    assert "slow" not in list(up.warnings())
    assert "messages" not in up.welcome()


def test_the_welcome_has_links_and_lines_to_copy(tmp_path: Path) -> None:
    text = prepared(tmp_path).welcome()
    assert "http://127.0.0.1:8000/demo-login/?token=login" in text
    assert "curl -s http://127.0.0.1:8000/api/pools/primes/commands/count -H 'Authorization: Bearer snk_key'" in text
    everywhere = prepared(tmp_path)
    everywhere.host = "::"
    assert "http://[::1]:8000/api/docs" in everywhere.welcome()


def test_without_a_web_server_no_url_is_shown(tmp_path: Path) -> None:
    text = prepared(tmp_path, web=False).welcome()
    assert "http:" not in text
    assert "call primes count" in text


def test_lines_to_copy_are_one_line_each() -> None:
    assert all("\n" not in line for line in lines(Demo("key", "token"), "http://127.0.0.1:8000", "/run/broker.sock"))


@pytest.mark.parametrize(
    ("pools", "states", "problems", "ready"),
    [
        (("digits",), ("starting",), (), False),
        (("digits",), ("starting", "ready"), (), True),
        ((), (), (), True),
        ((), (), ("digits: no such adapter",), True),
        ((), (), ("the definitions cannot be read: database is locked",), False),
    ],
)
def test_it_is_ready_with_a_worker_or_without_a_pool_once_the_definitions_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    pools: tuple[str, ...], states: tuple[str, ...], problems: tuple[str, ...], ready: bool,
) -> None:  # fmt: skip
    workers = [SimpleNamespace(state=state) for state in states]
    status = SimpleNamespace(pools=pools, workers=workers, node=SimpleNamespace(problems=problems))
    client = SimpleNamespace(status=lambda: status)
    monkeypatch.setattr("snakepit.pools.cli.up.connect", lambda address, **options: client)
    assert prepared(tmp_path)._worker_is_ready() is ready

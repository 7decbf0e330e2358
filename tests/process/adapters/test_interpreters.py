"""Interpreters: which are found and trusted, what they lack, and which one a pool gets.

Programs that stand for interpreters are small scripts that print what a real one would.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.adapters.interpreters.interpreter import QUESTION, REQUIREMENTS, ask, find_mistrust
from snakepit.pools.adapters.interpreters.known import (
    FREE_THREADED,
    InterpreterKeys,
    Interpreters,
    InterpreterUnfit,
    define,
)
from snakepit.pools.broker.spec import spec_from

ROOT = Path(__file__).resolve().parents[3]
COMPLETE = {"grpclib": "0.4.9", "h2": "4.3.0", "protobuf": "6.33.0"}


def program(directory: Path, name: str = "python", **facts: Any) -> str:
    """A script that answers like an interpreter, and leaves a line for each time that it was asked."""
    said = {
        "version": "3.13.5", "implementation": "CPython", "prefix": str(directory), "free_threaded": True,
        "managed": False, "installed": COMPLETE, "broken": {}, "gil_enabled": False, **facts,
    }  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\necho asked >> {directory}/asked\ncat <<'END'\n{json.dumps(said)}\nEND\n")
    path.chmod(0o755)
    return str(path)


def places(tmp_path: Path, **more: Any) -> InterpreterKeys:
    return InterpreterKeys(**{"own": sys.executable, "environ": {"HOME": str(tmp_path), "PATH": ""}, **more})


def test_an_interpreter_reports_its_version_and_that_it_can_run_workers() -> None:
    one = ask(sys.executable, "own")
    assert (one.version, one.implementation, one.problem) == (platform.python_version(), "CPython", "")
    assert one.fit, one.unfit
    assert one.prefix == sys.prefix


def test_the_question_compiles_in_the_oldest_grammar() -> None:
    """Anything called python may be asked. One without this grammar would be told off as "no Python from 3.11 on"."""
    assert ast.parse(QUESTION, feature_version=(3, 4)).body
    with pytest.raises(SyntaxError):  # the parser does tell old grammar from new
        ast.parse(f"number: int = 1\n{QUESTION}", feature_version=(3, 4))


def test_the_requirements_are_those_of_the_worker_extra() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["worker"]
    assert {f"{name}>={low},<{below}" for name, (_, low, below) in REQUIREMENTS.items()} == set(extra)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"installed": {}}, "grpclib is not installed; h2 is not installed; protobuf is not installed"),
        ({"installed": {**COMPLETE, "protobuf": "5.29.1"}}, "protobuf is 5.29.1, required is >=6.31.1,<8"),
        ({"broken": {"h2": "ImportError: no"}}, "h2 4.3.0 does not load: ImportError: no"),
        ({"version": "3.10.2"}, "it is Python 3.10.2; workers need 3.11 or newer"),
    ],
)
def test_what_an_interpreter_lacks_is_named(tmp_path: Path, facts: dict[str, Any], why: str) -> None:
    one = ask(program(tmp_path, **facts), "PATH")
    assert not one.fit
    assert one.unfit.startswith(why)


def test_the_install_command_is_the_one_to_type_also_where_pip_would_refuse(tmp_path: Path) -> None:
    path = program(tmp_path, installed={})
    wanted = "'grpclib>=0.4.9,<0.5' 'h2>=4.3,<5' 'protobuf>=6.31.1,<8'"
    assert ask(path, "PATH").unfit.endswith(f"Install: {path} -m pip install {wanted}")
    managed = ask(program(tmp_path, installed={}, managed=True), "PATH")
    assert managed.install_command == (f"{path} -m venv .venv-3.13t && .venv-3.13t/bin/python -m pip install {wanted}")


@pytest.mark.parametrize(
    ("text", "why"),
    [("#!/bin/sh\necho no such version >&2; exit 127\n", "its output: no such version"), ("", "it cannot be started")],
)
def test_a_program_that_is_no_python_is_recognized(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "python"
    path.write_text(text)
    path.chmod(0o755)
    assert why in ask(str(path), "PATH").problem


def test_an_interpreter_that_other_users_can_change_is_refused(tmp_path: Path) -> None:
    path = program(tmp_path / "bin")
    assert find_mistrust(path) == ""
    (tmp_path / "bin").chmod(0o777)
    assert find_mistrust(path) == f"{tmp_path}/bin can be changed by every user"
    (tmp_path / "bin").chmod(0o755)
    os.chmod(path, 0o757)
    assert find_mistrust(path) == f"{path} can be changed by every user"
    assert find_mistrust("bin/python") == "its path is not absolute"
    assert find_mistrust(str(tmp_path / "none")) == "there is no such file"


def test_an_interpreter_of_another_user_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path / "bin")
    if os.getuid() == 0:
        os.chown(path, 12345, 12345)
    else:  # only root can give a file away: be another user
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert "belongs to another user" in find_mistrust(path)
    known = Interpreters(places(tmp_path, registry={"theirs": path}))
    with pytest.raises(InterpreterUnfit, match="belongs to another user"):
        known.choose("theirs", "thread")
    assert not (tmp_path / "bin" / "asked").exists()


def test_interpreters_are_found_where_people_put_them(tmp_path: Path) -> None:
    program(tmp_path / ".pyenv/versions/3.12.1/bin", "python3.12", version="3.12.1", free_threaded=False)
    program(tmp_path / ".local/share/uv/python/cpython-3.14/bin", "python3.14t", version="3.14.0")
    program(tmp_path / "path", "python3.15t", version="3.15.0")
    program(tmp_path / "venv/bin", version="3.13.1")
    named = program(tmp_path / "named", version="3.13.2")
    environ = {"HOME": str(tmp_path), "PATH": f"relative:{tmp_path}/path", FREE_THREADED: named}
    known = Interpreters(places(tmp_path, venvs=(str(tmp_path / "venv"),), environ=environ))
    found = {(one.where, one.version) for one in known.all() if one.path.startswith(str(tmp_path))}
    assert found == {
        ("venv", "3.13.1"), ("environment", "3.13.2"), ("pyenv", "3.12.1"), ("uv", "3.14.0"), ("PATH", "3.15.0"),
    }  # fmt: skip


def test_a_version_is_the_first_that_can_run_workers(tmp_path: Path) -> None:
    program(tmp_path / ".pyenv/versions/a/bin", "python3.13t", installed={})
    path = program(tmp_path / ".local/share/uv/python/b/bin", "python3.13t")
    known = Interpreters(places(tmp_path))
    assert known.choose("3.13t", "process").path == path
    assert known.choose("3.13.5t", "process").reason == f"3.13.5t: CPython 3.13.5 (free-threaded, GIL off) at {path}"
    with pytest.raises(InterpreterUnfit, match=r"no Python 3\.99t is on this node"):
        known.choose("3.99t", "process")


def test_auto_is_a_free_threaded_one_for_threads_and_the_brokers_own_otherwise(tmp_path: Path) -> None:
    path = program(tmp_path / "venv/bin")
    known = Interpreters(places(tmp_path, venvs=(str(tmp_path / "venv"),)))
    chosen = known.choose("auto", "thread")
    assert (chosen.path, chosen.reason) == (path, f"auto: CPython 3.13.5 (free-threaded, GIL off) at {path}")
    assert known.choose("auto", "process").path == ""


def test_auto_reports_why_it_chose_an_interpreter_with_a_gil(tmp_path: Path) -> None:
    lacking = program(tmp_path / "venv/bin", installed={})
    known = Interpreters(places(tmp_path, venvs=(str(tmp_path / "venv"),)))
    chosen = known.choose("auto", "thread")
    assert chosen.path == ""
    assert f"{lacking} has none, but: grpclib is not installed" in chosen.reason
    assert f"Install: {lacking} -m pip install" in chosen.reason


def test_an_interpreter_is_asked_once_and_its_choice_is_kept(tmp_path: Path) -> None:
    program(tmp_path / "venv/bin")
    known = Interpreters(places(tmp_path, venvs=(str(tmp_path / "venv"),)))
    first = known.choose("auto", "thread")
    program(tmp_path / ".pyenv/versions/9/bin", "python3.13t", version="3.13.9")
    assert [known.choose("auto", "thread") for _ in range(3)] == [first] * 3
    assert (tmp_path / "venv/bin/asked").read_text() == "asked\n"


def test_an_unfit_interpreter_is_reported_and_a_mended_one_is_fit(tmp_path: Path) -> None:
    path = program(tmp_path / "bin", installed={})
    known = Interpreters(places(tmp_path, registry={"ft": path}))
    spec = spec_from({"name": "p", "adapter": "a", "python": "ft", "profile": "thread"})
    unfit = define(spec, "a.B", known)
    assert f"python: {path} cannot run workers: grpclib is not installed" in unfit.unfit
    os.utime(program(tmp_path / "bin"), ns=(1, 1))  # a new file: asked again at once
    fit = define(spec, "a.B", known)
    assert (fit.unfit, fit.spec.python) == ("", path)

"""`snakepit pythons`: what is printed of the interpreters, for people and for programs."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.adapters.interpreters import known
from snakepit.pools.adapters.interpreters.known import InterpreterKeys, Interpreters
from snakepit.pools.cli.main import run
from tests.process.adapters.test_interpreters import program


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """This machine has two interpreters: ours, and a free-threaded one without the worker's requirements."""
    free = program(tmp_path / "venv/bin", installed={})
    keys = InterpreterKeys(
        venvs=(str(tmp_path / "venv"),), own=sys.executable, environ={"HOME": str(tmp_path), "PATH": ""}
    )
    monkeypatch.setattr(InterpreterKeys, "candidates", lambda _: iter((("own", sys.executable), ("venv", free))))
    monkeypatch.setattr(known, "interpreters_of_settings", lambda: Interpreters(keys))
    return free


def test_the_interpreters_are_listed_as_json(places: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pythons", "--json"]) == 0
    own, free = json.loads(capsys.readouterr().out)["pythons"]
    facts: dict[str, Any] = {"where": "own", "path": sys.executable, "version": platform.python_version(), "fit": True}
    assert own.items() >= facts.items()
    assert (free["name"], free["gil"], free["free_threaded"], free["fit"]) == ("3.13t", "off", True, False)
    assert free["lacks"][0] == "grpclib is not installed"
    assert free["install"].startswith(f"{places} -m pip install ")
    assert free["profile"] == ""


def test_the_interpreters_are_a_table_with_the_command_that_mends_them(
    places: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pythons"]) == 0
    shown = capsys.readouterr().out
    assert "3.13.5t" in shown
    assert f"{places}: grpclib is not installed; h2 is not installed; protobuf is not installed" in shown
    assert f"  {places} -m pip install 'grpclib" in shown

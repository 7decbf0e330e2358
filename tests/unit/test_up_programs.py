"""The programs of `snakepit up`, without starting them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from snakepit.pools.cli.up import Up

PROGRAMS = ("broker", "celery", "beat", "web")


def environments(state: Path) -> dict[str, dict[str, str]]:
    up = Up(False, "127.0.0.1", 1)
    up.state, up.secrets, up.project = state, None, cast(Any, SimpleNamespace(celery="project"))
    return {program.name: dict(program.environment) for program in up.programs()}


def test_the_threads_of_each_program_share_one_arena(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    found = environments(tmp_path)
    assert {name: one["MALLOC_ARENA_MAX"] for name, one in found.items()} == dict.fromkeys(PROGRAMS, "1")


def test_a_number_of_arenas_in_the_environment_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    found = environments(tmp_path)
    assert {name: one["MALLOC_ARENA_MAX"] for name, one in found.items()} == dict.fromkeys(PROGRAMS, "8")

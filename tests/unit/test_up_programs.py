"""The programs of `snakepit up`, without starting them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from snakepit.pools.cli.up import Up


def environments(state: Path) -> dict[str, dict[str, str]]:
    up = Up(False, "127.0.0.1", 1)
    up.state, up.secrets, up.project = state, None, cast(Any, SimpleNamespace(celery="project"))
    return {program.name: dict(program.environment) for program in up.programs()}


def test_programs_with_threads_for_requests_and_jobs_share_two_arenas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    found = environments(tmp_path)
    assert found["web"]["MALLOC_ARENA_MAX"] == found["celery"]["MALLOC_ARENA_MAX"] == "2"
    assert found["broker"] == {}  # whose workers inherit it


def test_a_number_of_arenas_in_the_environment_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    found = environments(tmp_path)
    assert found["web"]["MALLOC_ARENA_MAX"] == found["celery"]["MALLOC_ARENA_MAX"] == "8"

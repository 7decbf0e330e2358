"""This whole floor once more, on PostgreSQL: what SQLite forgives, it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    given = os.environ.get("SNAKEPIT_TEST_POSTGRES_URL")
    return given or str(request.getfixturevalue("postgres_url"))


@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_this_floor_passes_on_postgresql(url: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    if os.environ.get("SNAKEPIT_DATABASE_URL", "").startswith("postgres"):
        pytest.skip("this run is on PostgreSQL already")
    env = {**os.environ, "SNAKEPIT_DATABASE_URL": url, "SNAKEPIT_STATE_DIR": str(tmp_path)}
    # The seed of this run, so that an order which fails can be had again.
    seed = pytestconfig.getoption("randomly_seed", None)
    order = ["-p", "no:randomly"] if seed is None else [f"--randomly-seed={seed}"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        *order,
        "-m",
        "not postgres",
        "tests/process/integration",
        "--create-db",
    ]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]

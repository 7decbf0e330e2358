"""Source files are watched for a pool's definition: what counts as a change, and which files are looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snakepit.pools.adapters.records.reload import ReloadingDefinitions
from snakepit.pools.broker.ports import Definition, Loaded
from snakepit.pools.broker.spec import PoolSpec

SPEC = PoolSpec(name="greeter", adapter="greeter")


class Fixed:
    def load(self) -> Loaded:
        return Loaded((Definition(SPEC, "greeter.Greeter"),))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("greeter.py", "shop/models.py", "shop/.git/hook.py", "env/lib.py", "shop/__pycache__/models.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    (tmp_path / "env/pyvenv.cfg").touch()
    (tmp_path / "notes.txt").write_text("1")
    return tmp_path


def loaded(port: ReloadingDefinitions) -> Definition:
    (definition,) = port.load().definitions
    return definition


def test_an_unchanged_tree_gives_the_same_definition(place: Path) -> None:
    port = ReloadingDefinitions(Fixed(), [str(place)])
    first = loaded(port)
    for ignored in ("shop/.git/hook.py", "env/lib.py", "shop/__pycache__/models.py", "notes.txt"):
        (place / ignored).write_text("changed")
    assert loaded(port) == first
    assert first.find_code_change(first) == ""


@pytest.mark.parametrize("change", ["text", "time", "new", "gone"])
def test_a_change_of_a_file_is_named(place: Path, change: str) -> None:
    port = ReloadingDefinitions(Fixed(), [str(place)])
    before = loaded(port)
    path = place / "shop" / ("views.py" if change == "new" else "models.py")
    if change == "time":
        os.utime(path, ns=(0, 1))
    elif change == "gone":
        path.unlink()
    else:
        path.write_text("another")
    after = loaded(port)
    assert after.find_code_change(before) == f"shop/{path.name} changed"
    assert loaded(port) == after


def test_an_archive_of_the_worker_path_is_watched(tmp_path: Path) -> None:
    archive = tmp_path / "bundle.zip"
    archive.write_text("1")
    port = ReloadingDefinitions(Fixed(), [str(archive)])
    before = loaded(port)
    archive.write_text("22")
    assert loaded(port).find_code_change(before) == f"{archive} changed"


def test_another_path_of_the_adapter_is_a_change_too() -> None:
    before = Definition(SPEC, "greeter.Greeter")
    assert Definition(SPEC, "shop.Greeter").find_code_change(before) == "the adapter's path changed"

"""An adapter path is checked in the source files: nothing of the user's is imported."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from snakepit.pools.adapter_source import find_problem
from snakepit.pools.checks import check_snakepit

MODULE = """
raise SystemExit("this module must not be imported")
try:
    from fast import Adapter as Fast
except ImportError:
    class Slow: ...
else:
    Named = Fast
if True:
    Both: type = Slow
"""


@pytest.fixture
def home(tmp_path: Path) -> str:
    (tmp_path / "shop/deep").mkdir(parents=True)
    for package in ("shop", "shop/deep"):
        (tmp_path / package / "__init__.py").write_text("raise SystemExit\n")
    (tmp_path / "shop/deep/models.py").write_text(MODULE)
    (tmp_path / "shop/broken.py").write_text("class A:\n  def f(:\n")
    (tmp_path / "shop/lazy.py").write_text("def __getattr__(name): ...\n")
    return str(tmp_path)


@pytest.mark.parametrize("name", ["Fast", "Slow", "Named", "Both"])
def test_a_name_is_found_wherever_the_module_defines_it(home: str, name: str) -> None:
    assert find_problem(f"shop.deep.models.{name}", [home]) == ""


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("shop.deep.models.Slwo", "the module shop.deep.models defines no 'Slwo' (did you mean 'Slow'?)"),
        ("shop.deep.model.Slow", "there is no module shop.deep.model"),
        ("shop.broken.more.Slow", "there is no module shop.broken.more"),
        ("nowhere.at.all.Slow", "there is no module nowhere"),
        ("shop.broken.A", "the module shop.broken has a syntax error in line 2: "),
        ("shop.lazy.Anything", ""),
    ],
)
def test_a_problem_is_named(home: str, path: str, says: str) -> None:
    found = find_problem(path, [home])
    assert found.startswith(says)
    assert bool(found) == bool(says)
    assert not {"shop", "shop.broken"} & sys.modules.keys()


def test_a_zip_archive_is_searched(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        archive.writestr("bundled.py", "class Good: ...\n")
    assert find_problem("bundled.Good", [str(tmp_path / "bundle.zip")]) == ""
    assert "did you mean 'Good'" in find_problem("bundled.Goood", [str(tmp_path / "bundle.zip")])


def test_another_package_of_our_name_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "snakepit").mkdir()
    assert check_snakepit() == []  # a folder of data is no package
    (tmp_path / "snakepit/__init__.py").touch()
    assert [(one.id, str(tmp_path / "snakepit") in one.msg) for one in check_snakepit()] == [("snakepit.W005", True)]

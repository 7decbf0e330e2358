"""`snakepit new-adapter`: the file works, and nothing is overwritten."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.cli.adapter_template import class_name
from snakepit.pools.cli.main import run


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["price_list", "context", "none", "iterator", "a__b"])
def test_the_generated_adapter_works(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["new-adapter", name, "--path", str(tmp_path)]) == 0
    adapter = getattr(load(tmp_path / f"{name}.py"), class_name(name))(greeting="Hi")
    assert adapter.greet(name="Ada") == "Hi Ada"
    seen: list[float] = []

    class FakeContext:
        def progress(self, fraction: float, message: str) -> None:
            seen.append(fraction)

        def raise_if_cancelled(self) -> None: ...

    assert list(adapter.count(FakeContext(), to=2)) == [1, 2]
    assert seen == [0.5, 1.0]
    assert f'"{name}": {{"adapter": "{name}", "size": 2}}' in capsys.readouterr().out


def test_the_settings_name_the_class_as_seen_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["new-adapter", "prices", "--path", "shop/adapters"]) == 0
    assert '"ADAPTERS": {"prices": "shop.adapters.prices.Prices"}' in capsys.readouterr().out


def test_an_existing_file_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text("precious")
    assert run(["new-adapter", "mine", "--path", str(tmp_path)]) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert (tmp_path / "mine.py").read_text() == "precious"


@pytest.mark.parametrize("name", ["", "Digits", "1st", "two words", "class", "../up", "x" * 49, "ünï"])
def test_a_name_that_is_no_module_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["new-adapter", name, "--path", str(tmp_path)]) == 2
    assert "cannot name an adapter" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

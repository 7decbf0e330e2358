"""What needs a fresh interpreter or a build: the layers, what a program loads, and what a wheel carries."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[2]
ASK = "import sys; sys.stderr.write('\\n'.join(sys.modules))"


def test_every_import_points_down_through_the_layers() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run([*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def packages(modules: Iterable[str]) -> set[str]:
    """The top-level package of each module; of our own, the package below `snakepit`."""
    return {".".join(name.split(".")[: 2 if name.startswith("snakepit.") else 1]) for name in modules}


def loaded_by(program: str) -> set[str]:
    """The modules in memory after a program ran in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_the_worker_program_loads_neither_django_nor_grpcio() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "snakepit.workers", "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = packages(line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line)
    assert "snakepit.workers" in loaded, "importtime printed nothing that this test can read"
    assert loaded & {"django", "grpc", "celery", "ninja", "snakepit.pools", "psutil", "pydantic"} == set()


def test_an_adapter_is_written_against_workers_without_loading_anything_else() -> None:
    names = packages(loaded_by(f"from snakepit import Adapter, command; {ASK}"))
    assert "snakepit.workers" in names
    assert names & {"django", "grpc", "grpclib", "google", "celery", "ninja", "snakepit.pools", "psutil"} == set()


def test_broker_command_line_and_site_load_no_grpcio() -> None:
    program = (
        "import django; django.setup(); import snakepit.site.urls, snakepit.site.celery, snakepit.pools.cli.main, "
        f"snakepit.pools.adapters.node; {ASK}"
    )
    environment = {"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "snakepit.site.settings"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    names = packages(done.stderr.split())
    assert {"grpclib", "snakepit.site"} <= names
    assert "grpc" not in names


def test_the_client_loads_no_django_and_no_grpcio() -> None:
    names = packages(loaded_by(f"from snakepit import connect; {ASK}"))
    assert "snakepit.pools" in names
    assert names & {"django", "grpc", "celery", "ninja", "psutil", "pydantic"} == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the backend that pip would use, and unpacked as pip would."""
    out = tmp_path_factory.mktemp("wheel")
    build = f"from hatchling.build import build_wheel; print(build_wheel({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", build], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    with ZipFile(out / done.stdout.split()[-1]) as archive:
        archive.extractall(out / "site")
    return out / "site"


def test_a_wheel_carries_the_templates_the_types_and_the_examples(wheel: Path) -> None:
    names = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*") if path.is_file()}
    assert {"snakepit/py.typed", "snakepit/workers/__main__.py", "snakepit/site/settings.py"} <= names
    assert {"snakepit/testing/__init__.py", "snakepit/testing/plugin.py"} <= names
    (points,) = wheel.glob("*.dist-info/entry_points.txt")
    assert "[pytest11]\nsnakepit = snakepit.testing.plugin" in points.read_text()
    assert {"snakepit/examples/digits.py", "snakepit/pools/wire/broker_pb2.py"} <= names
    expected = {f"snakepit/pools/templates/{path.relative_to(ROOT / 'templates')}" for path in files_in("templates")}
    assert expected
    assert expected <= names
    top = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert top == {"snakepit"}


@pytest.mark.parametrize("folder", ["pools", "workers", "testing"])
def test_a_package_refuses_to_be_imported_by_the_name_of_its_folder(folder: str) -> None:
    command = [sys.executable, "-c", f"import {folder}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert f"import snakepit.{folder}, not {folder}" in done.stderr


def test_an_installed_wheel_finds_its_templates_and_its_migrations(wheel: Path, tmp_path: Path) -> None:
    program = """
import django; django.setup()
import snakepit.pools; print(snakepit.pools.__file__)
from django.core.management import call_command
from django.template.loader import get_template
print(get_template("snakepit/base.html").origin.name)
call_command("migrate", verbosity=0)
call_command("makemigrations", check=True, dry_run=True, verbosity=0)
"""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(wheel),
        "DJANGO_SETTINGS_MODULE": "snakepit.site.settings",
        "SNAKEPIT_STATE_DIR": str(tmp_path / "state"),
    }
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(str(wheel)) for line in done.stdout.split()), done.stdout


def files_in(folder: str) -> list[Path]:
    return [path for path in (ROOT / folder).rglob("*") if path.is_file()]

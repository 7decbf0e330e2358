"""Rules that a program can check in the sources: layers, sizes, and what each package may import."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("snakepit_site", "pools", "workers", "examples", "benchmarks")
LONGEST_MODULE = 400
LONGEST_FUNCTION = 45
MOST_PARAMETERS = 6
FOR_GRPCIO = {"pools/wire/broker_pb2_grpc.py", "examples/grpc_client.py"}
WORKER_LIBRARIES = {"grpclib", "google"}
NEWER_STANDARD_LIBRARY = {"annotationlib"}  # of 3.14; the interpreter that runs the tests may be older


def sources(*packages: str) -> list[Path]:
    """The hand-written modules of the packages: not the generated stubs, not the migrations."""
    written = (path for package in packages for path in sorted((ROOT / package).rglob("*.py")))
    return [path for path in written if not {"wire", "migrations"} & set(path.relative_to(ROOT).parts)]


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a module imports absolutely, in functions too."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module or ""


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        text = function.body[0]
        lines -= (text.end_lineno or 0) - text.lineno + 1
    return lines


def test_no_module_is_longer_than_400_lines() -> None:
    counts = {name_of(path): len(path.read_text().splitlines()) for path in sources(*PACKAGES)}
    assert counts, "no sources were found: this test looks in the wrong place"
    assert {name: count for name, count in counts.items() if count > LONGEST_MODULE} == {}


def test_no_function_is_longer_than_45_lines() -> None:
    found = {
        f"{name_of(path)}:{function.lineno} {function.name}": length(function)
        for path in sources(*PACKAGES)
        for function in functions(path)
        if length(function) > LONGEST_FUNCTION
    }
    assert found == {}


def test_no_function_has_more_than_six_parameters_that_can_be_given_by_place() -> None:
    found = []
    for path in sources(*PACKAGES):
        for function in functions(path):
            given = [a.arg for a in (*function.args.posonlyargs, *function.args.args) if a.arg not in ("self", "cls")]
            if len(given) > MOST_PARAMETERS:
                found.append(f"{name_of(path)}:{function.lineno} {function.name}")
    assert found == []


def placed(layers: list[str]) -> set[str]:
    """The module names in import-linter's way of writing layers: `a | b`, `a : b`, `(optional)`."""
    words = " ".join(layers)
    for sign in "|:()":
        words = words.replace(sign, " ")
    return set(words.split())


def layer_contracts() -> dict[str, dict]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return {c["containers"][0]: c for c in settings["contracts"] if c["type"] == "layers" and "containers" in c}


@pytest.mark.parametrize(
    "container", ["snakepit.pools", "snakepit.pools.broker", "snakepit.pools.broker.pool", "snakepit.workers"]
)
def test_every_module_has_a_place_in_a_layer(container: str) -> None:
    contract = layer_contracts()[container]
    folder = ROOT / Path(*container.split("."))
    modules = {path.stem for path in folder.glob("*.py") if path.name != "__init__.py"}
    modules |= {path.parent.name for path in folder.glob("*/__init__.py")}
    missing = modules - placed(contract["layers"]) - set(contract.get("exhaustive_ignores", []))
    assert missing == set(), f"place them in the contract {contract['name']!r} of pyproject.toml"


def test_only_the_server_of_a_worker_imports_grpc_and_protobuf() -> None:
    # Of an external package, import-linter can forbid only the whole; this one asks for the importing modules.
    speakers = {
        path.stem
        for path in sources("workers")
        for _, name in imports(path)
        if name.partition(".")[0] in WORKER_LIBRARIES
    }
    assert speakers == {"server"}


def test_workers_use_the_standard_library_protobuf_and_grpclib_only() -> None:
    foreign = [
        f"{name_of(path)}:{line} {name}"
        for path in sorted((ROOT / "workers").rglob("*.py"))
        for line, name in imports(path)
        if (top := name.partition(".")[0]) not in sys.stdlib_module_names
        and top not in WORKER_LIBRARIES | NEWER_STANDARD_LIBRARY
        and not name.startswith("snakepit.workers")
    ]
    assert foreign == []


@pytest.mark.parametrize("banned", ["pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "grpc"])
def test_the_product_imports_no(banned: str) -> None:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    # The extra `grpc`: a generated stub for stock grpcio, and the example that uses it.
    paths = [path for path in paths if banned != "grpc" or name_of(path) not in FOR_GRPCIO]
    found = [
        f"{name_of(path)}:{line}" for path in paths for line, name in imports(path) if name.partition(".")[0] == banned
    ]
    assert found == []


def test_no_module_imports_ours_by_the_name_of_a_folder() -> None:
    folders = {"pools", "workers", "examples", "snakepit_site"}
    paths = [*sources(*PACKAGES), *sorted((ROOT / "tests").rglob("*.py"))]
    found = [
        f"{name_of(path)}:{line} {name}"
        for path in paths
        for line, name in imports(path)
        if name.partition(".")[0] in folders
    ]
    assert found == []


def test_no_dependency_is_installed_for_nothing() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module_of = {"django-ninja": "ninja", "protobuf": "google.protobuf", "prometheus-client": "prometheus_client"}
    written = "\n".join(path.read_text() for path in sources("pools", "workers", "snakepit_site"))
    for line in project["dependencies"]:
        name = re.split(r"[\[><=; ]", line)[0].lower()
        assert re.search(rf"\b{re.escape(module_of.get(name, name))}\b", written), f"nothing uses {name}"

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
PACKAGES = ("snakepit_site", "pools", "workers", "testing", "examples", "benchmarks")
LONGEST_MODULE = 400
LONGEST_FUNCTION = 45
MOST_PARAMETERS = 6
FOR_GRPCIO = {"pools/wire/broker_pb2_grpc.py", "examples/grpc_client.py", "benchmarks/network.py"}
WORKER_LIBRARIES = {"grpclib", "h2", "google"}
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
    "container",
    ["snakepit.pools", "snakepit.pools.broker", "snakepit.pools.broker.pool", "snakepit.testing", "snakepit.workers"],
)
def test_every_module_has_a_place_in_a_layer(container: str) -> None:
    contract = layer_contracts()[container]
    folder = ROOT / Path(*container.split("."))
    modules = {path.stem for path in folder.glob("*.py") if path.name != "__init__.py"}
    modules |= {path.parent.name for path in folder.glob("*/__init__.py")}
    missing = modules - placed(contract["layers"]) - set(contract.get("exhaustive_ignores", []))
    assert missing == set(), f"place them in the contract {contract['name']!r} of pyproject.toml"


def test_only_the_transport_of_a_worker_imports_grpc_and_protobuf() -> None:
    # Of an external package, import-linter can forbid only the whole; this one asks for the importing modules.
    importers = {
        path.parent.name
        for path in sources("workers")
        for _, name in imports(path)
        if name.partition(".")[0] in WORKER_LIBRARIES
    }
    assert importers == {"transport"}


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
    folders = {"pools", "workers", "testing", "examples", "snakepit_site"}
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


# Documented names that begin with an underscore: safe to use everywhere.
DOCUMENTED_NAMES = {
    "_exit": "os",
    "_fields": "a named tuple",
    "_meta": "a Django model",
    "_state": "a Django model's instance",
    "_current_frames": "sys",
    "_getframe": "sys",
    "_is_gil_enabled": "sys, from Python 3.13 on",
}
# Private names of third parties: all of a module, or those listed, with the reason. Each has a fall-back and a test.
PRIVATE_NAMES: dict[str, set[str] | None] = {
    "pools/client/loop_thread.py": {"_set_running_loop", "_get_running_loop"},  # after an interrupt in run_forever
    "workers/transport/grpclib_internals.py": None,  # the fast path; fast_path_check.py tries it at the first use
    # Without them a broker does not listen on a network.
    "workers/transport/grpclib_connections.py": {"_connection", "_protocol_factory"},
    "workers/transport/fast_path_check.py": {"_stream"},  # a stream without it takes grpclib's public API
    "pools/api/key_requests.py": {"_get_response_async", "_live_receivers"},  # without them Django's own handler serves
    "pools/jobs/celery_connections.py": {"_fixups"},  # without it Celery's own rule stays
    "pools/jobs/messages.py": {"_consume_from"},  # without it a worker reads its pools' queues beside those of -Q
    "testing/jobs.py": {"_from_testcase"},  # without it a job of a TestCase waits for run_jobs()
    "workers/runtime/containment.py": {"_data"},  # of os.environ; without it the mapping itself is compared, slowly
    "workers/runtime/races.py": {"_lock"},  # of threading.Condition; without it the condition counts as its own lock
}
BY_NAME = {"getattr", "setattr", "hasattr", "delattr"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def defined_names(tree: ast.Module) -> set[str]:
    """The private names that a module defines: attributes of self, functions, classes, variables and slots."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            found.add(node.attr)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__":
            found.update(str(one.value) for one in ast.walk(node.value) if isinstance(one, ast.Constant))
    return {name for name in found if is_private(name)}


def imported_names(node: ast.AST) -> list[str]:
    """Each part of the names that a statement imports from other packages."""
    if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(
        ("snakepit", "_typeshed")
    ):  # types alone
        return [*(node.module or "").split("."), *(alias.name for alias in node.names)]
    if isinstance(node, ast.Import):
        return [part for alias in node.names for part in alias.name.split(".")]
    return []


def foreign_names(tree: ast.Module, ours: set[str]) -> Iterator[tuple[int, str]]:
    """Line and name of each private name of a third party.

    A name on `self` is ours if any module of ours defines it; on another object only if this module does.
    """
    here = defined_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if node.attr not in DOCUMENTED_NAMES and node.attr not in (ours if is_self(node.value) else here):
                yield from ((node.lineno, name) for name in (node.attr,) if is_private(name))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BY_NAME:
            match node.args:
                case [owner, ast.Constant(value=str(name)), *_] if is_private(name) and not is_self(owner):
                    if name not in DOCUMENTED_NAMES:
                        yield node.lineno, name
        else:
            yield from ((getattr(node, "lineno", 0), name) for name in imported_names(node) if is_private(name))


def test_private_names_of_third_parties_stand_in_the_listed_files_alone() -> None:
    trees = {name_of(path): tree_of(path) for path in sources(*PACKAGES)}
    ours = set().union(*map(defined_names, trees.values()))
    found = {(module, line, name) for module, tree in trees.items() for line, name in foreign_names(tree, ours)}
    allowed = {
        (module, line, name)
        for module, line, name in found
        if module in PRIVATE_NAMES and ((names := PRIVATE_NAMES[module]) is None or name in names)
    }
    assert found - allowed == set()
    gone = {(module, name) for module, names in PRIVATE_NAMES.items() for name in names or ()}
    gone -= {(module, name) for module, _, name in allowed}
    assert gone == set(), "they are not used any more: take them out of PRIVATE_NAMES"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("stream._wrapper", ["_wrapper"]),
        ("asyncio._get_running_loop()", ["_get_running_loop"]),
        ("from celery._state import current_app", ["_state"]),
        ("import a._b", ["_b"]),
        ("getattr(stream, '_stream', None)", ["_stream"]),
        ("self._attribute_of_a_foreign_parent", ["_attribute_of_a_foreign_parent"]),
        ("os._exit(1)", []),
        ("class A:\n    def __init__(self): self._a = 1\ndef f(a): return a._a", []),
        ("class A:\n    __slots__ = ('_a',)\ndef f(a): return a._a", []),
        ("from snakepit.workers import _ours", []),
    ],
)
def test_the_search_for_private_names_finds_them(source: str, names: list[str]) -> None:
    tree = ast.parse(source)
    assert [name for _, name in foreign_names(tree, defined_names(tree))] == names

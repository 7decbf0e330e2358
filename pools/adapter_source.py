"""Looks for an adapter in the source files, without importing any: `manage.py check` must not run user code."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder


def find_problem(path: str, places: Sequence[str]) -> str:
    """Why `package.module.Adapter` cannot be imported; empty if it can, or if only an import could show it.

    >>> find_problem("json.decoder.JSONDecoder", [])
    ''
    >>> find_problem("json.decoder.JSONDecodr", [])
    "the module json.decoder defines no 'JSONDecodr' (did you mean 'JSONDecoder'?)"
    >>> find_problem("json.nothing.Adapter", [])
    'there is no module json.nothing'
    """
    module, _, name = path.rpartition(".")
    spec, missing = _find(module, places)
    if spec is None:
        return f"there is no module {missing}"
    source = _source(spec, module)
    if source is None:
        return ""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        return f"the module {module} has a syntax error in line {error.lineno}: {error.msg}"
    names = set(_names(tree.body))
    if name in names or names & {"*", "__getattr__"}:
        return ""
    near = difflib.get_close_matches(name, names, 1)
    more = f" (did you mean {near[0]!r}?)" if near else ""
    return f"the module {module} defines no {name!r}{more}"


def _find(module: str, places: Sequence[str]) -> tuple[ModuleSpec | None, str]:
    """The module's spec, or the first name that is missing. Searches directories and zip archives."""
    where: Sequence[str] | None = [*places, *sys.path]
    spec: ModuleSpec | None = None
    name = ""
    for part in module.split("."):
        if spec is not None and where is None:
            return None, f"{name}.{part}"  # a module that is no package has no submodules
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, where)
        if spec is None and "." not in name:
            spec = _other_finders(name)
        if spec is None:
            return None, name
        where = spec.submodule_search_locations and [*spec.submodule_search_locations]
    return spec, ""


def _other_finders(package: str) -> ModuleSpec | None:
    """Built-in modules, and packages that an editable installation finds through a hook."""
    try:
        return importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None


def _source(spec: ModuleSpec, module: str) -> str | None:
    """The module's text; None where it is compiled."""
    read = getattr(spec.loader, "get_source", None)
    try:
        text = read(module) if read else None
    except (ImportError, OSError):
        return None
    return text if isinstance(text, str) else None


def _names(body: Sequence[ast.stmt]) -> Iterator[str]:
    """What the statements define at the top level, also inside `if`, `try` and `with`."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((one.asname or one.name).partition(".")[0] for one in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name))
        else:
            for field in ("body", "orelse", "finalbody"):
                yield from _names(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from _names(handler.body)

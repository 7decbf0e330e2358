"""Declares a setting with its check. A check returns what is wrong with a value, or None."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from snakepit.pools.broker.caller import find_limit_problem

DOTTED_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?")


def setting(
    default: Any,
    *,
    help: str,
    check: Callable[[Any], str | None],
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
) -> Any:
    """One key. `check` returns what is wrong with a value, or None."""
    metadata = {"help": help, "check": check, "low": low, "high": high, "unit": unit}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def number(default: float, low: float, high: float, *, help: str, unit: str = "") -> Any:
    def check(value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int if isinstance(default, int) else int | float):
            return f"{value!r} is not a {'whole ' if isinstance(default, int) else ''}number"
        return None if low <= value <= high else f"{value} is outside {low} to {high}"

    return setting(default, help=help, check=check, low=low, high=high, unit=unit)


def text(value: Any) -> str | None:
    fits = isinstance(value, str | os.PathLike) and "\0" not in os.fspath(value)
    return None if fits else f"{value!r} is not a string"


def flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else f"{value!r} is not True or False"


def registry(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return f"{value!r} is not a dict of key: dotted path"
    for key, path in value.items():
        if not isinstance(key, str) or not key:
            return f"the key {key!r} is not a string"
        if not isinstance(path, str) or not DOTTED_PATH.fullmatch(path):
            return f"{path!r} (key {key!r}) is not a dotted path such as 'shop.workers.Prices'"
    return None


def interpreters(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return f"{value!r} is not a dict of key: path"
    for key, path in value.items():
        if not isinstance(key, str) or not key:
            return f"the key {key!r} is not a string"
        if text(path) is not None or not os.path.isabs(path):
            return f"{path!r} (key {key!r}) is not an absolute path"
    return None


def limits(value: Any) -> str | None:
    return find_limit_problem(value) or None


def pools(value: Any) -> str | None:
    fits = isinstance(value, Mapping) and all(isinstance(one, Mapping) for one in value.values())
    return None if fits else "is not a dict of pool name: dict of the pool's fields"


def paths(value: Any) -> str | None:
    fits = isinstance(value, list | tuple) and all(text(one) is None for one in value)
    return None if fits else f"{value!r} is not a list of directories"


def account(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return None
    return None if isinstance(value, str) and "\0" not in value else f"{value!r} is not a name or a number"


def accounts(value: Any) -> str | None:
    fits = isinstance(value, list | tuple) and all(one != "" and account(one) is None for one in value)
    return None if fits else f"{value!r} is not a list of names or numbers of groups"


def variables(value: Any) -> str | None:
    if not isinstance(value, list | tuple):
        return f"{value!r} is not a list of names of environment variables"
    for name in value:
        if not isinstance(name, str) or not VARIABLE.fullmatch(name):
            return f"{name!r} is not the name of an environment variable (a trailing * is allowed)"
    return None

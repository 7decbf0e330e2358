"""The table of libraries, read from `libraries.toml` and validated.

>>> library_of("PyYAML").name, library_of("sklearn.svm") is None, owner_of("sklearn.svm").name
('pyyaml', True, 'scikit-learn')
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TABLE = Path(__file__).with_name("libraries.toml")
THREADS = ("safe", "conditional", "unsafe", "unknown")
GIL = ("releases", "partly", "holds", "pure", "unknown")
FREE_THREADING = ("wheels", "partial", "source", "none", "pure", "stdlib", "unknown")
VERSION = re.compile(r"\d+(\.\d+)*")
ABI = re.compile(r"cp3\d\dt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """One row. Raises ValueError for a value that the head of the table does not list."""

    name: str
    modules: tuple[str, ...]
    threads: str
    gil: str
    free_threading: str
    source: str
    checked: date | None = None  # None: copied from the tracker, page not read
    since: str = ""
    also: tuple[str, ...] = ()  # other distributions of the same modules
    abis: tuple[str, ...] = ()  # free-threaded ABIs with wheels; empty: unknown
    last: dict[str, str] = field(default_factory=dict)  # by ABI: the last version with wheels for it
    wheels_source: str = ""
    minimum: str = ""
    advice: str = ""

    def __post_init__(self) -> None:
        allowed = {"threads": THREADS, "gil": GIL, "free_threading": FREE_THREADING}
        for key, values in allowed.items():
            if getattr(self, key) not in values:
                raise ValueError(f"{self.name}: {key}: {getattr(self, key)!r} is not one of {', '.join(values)}")
        if self.name != canonical(self.name) or not self.modules:
            raise ValueError(f"{self.name}: needs the canonical name {canonical(self.name)!r} and a list of modules")
        for key, text in (("since", self.since), ("minimum", self.minimum), *self.last.items()):
            if text and not VERSION.fullmatch(text):
                raise ValueError(f"{self.name}: {key}: {text!r} is not a version")
        self._check_abis()
        for key, page in (("source", self.source), ("wheels_source", self.wheels_source or self.source)):
            if urlsplit(page).scheme != "https" or not urlsplit(page).hostname:
                raise ValueError(f"{self.name}: {key}: {page!r} is not an https URL")
        if self.checked is not None and type(self.checked) is not date:
            raise ValueError(f"{self.name}: checked: {self.checked!r} is not a date")

    def _check_abis(self) -> None:
        if wrong := [abi for abi in self.abis if not ABI.fullmatch(abi)]:
            raise ValueError(f"{self.name}: abis: {wrong[0]!r} is not an ABI such as cp314t")
        if missing := self.last.keys() - set(self.abis):
            raise ValueError(f"{self.name}: last: {min(missing)!r} is not among its abis")

    @property
    def wheels(self) -> str:
        """A short description of the free-threaded wheels.

        >>> library_of("scikit-learn").wheels
        'wheels from 1.6.0: cp313t up to 1.8.0, cp314t'
        """
        since = f" from {self.since}" if self.since else ""
        each = (f"{abi} up to {self.last[abi]}" if abi in self.last else abi for abi in self.abis)
        return self.free_threading + since + (f": {', '.join(each)}" if self.abis else "")


def canonical(name: str) -> str:
    """A distribution's name as package indexes compare it: `PyYAML` is `pyyaml`, `ruamel.yaml` is `ruamel-yaml`."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def libraries() -> dict[str, Library]:
    """Every row by its name."""
    rows: list[dict[str, Any]] = tomllib.loads(TABLE.read_text())["library"]
    lists = ("modules", "also", "abis")
    found = [Library(**{**row, **{key: tuple(row.get(key, ())) for key in lists}}) for row in rows]
    if len({one.name for one in found}) < len(found):
        raise ValueError(f"{TABLE.name}: a library has two rows")
    return {one.name: one for one in found}


def library_of(distribution: str) -> Library | None:
    name = canonical(distribution)
    return libraries().get(name) or next((one for one in libraries().values() if name in one.also), None)


def owner_of(module: str) -> Library | None:
    """The library that a module belongs to, for example a module that enabled the GIL."""
    for one in libraries().values():
        if any(module == name or module.startswith(f"{name}.") for name in one.modules):
            return one
    return None


def numbers(version: str) -> tuple[int, ...]:
    """A version as a tuple of numbers, for comparison; suffixes are ignored.

    >>> numbers("1.10") > numbers("1.9.2rc1")
    True
    """
    match = VERSION.match(version)
    return tuple(map(int, match[0].split("."))) if match else ()
